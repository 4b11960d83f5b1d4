"""Keys that DeepfakeBench's own code reads and the plugin does not; they are passed through."""

HOST_ONLY_KEYS = frozenset(
    [
        "pretrained",
        "backbone_name",
        "backbone_config",
        "all_dataset",
        "with_mask",
        "with_landmark",
        "logdir",
        "save_feat",
        "loss_func",
        "losstype",
        "ngpu",
        "cuda",
        "cudnn",
        "SWA",
        "save_avg",
        "mode",
        "dry_run",
        "ddp",
        "local_rank",
        "task_target",
        "video_mode",
        "clip_size",
        "dataset_type",
        "mixup_prob",
        "fine_tune",
    ]
)
