"""A registry answers with the class, or says whose the name is and what there is."""

import pytest


@pytest.fixture
def registry():
    from metrics.registry import Registry

    registry = Registry("DETECTOR")
    registry.register_module(module_name="meso4")(dict)
    return registry


def test_name_to_class(registry):
    class Named: ...

    assert registry.register_module()(Named) is Named
    assert registry["Named"] is Named
    assert registry["meso4"] is dict
    assert registry.data == {"meso4": dict, "Named": Named}
    assert "meso4" in registry
    assert "meso" not in registry


def test_unknown_name_suggests_near_ones(registry):
    with pytest.raises(KeyError) as caught:
        registry["meso"]
    assert str(caught.value) == "DETECTOR has no 'meso'; did you mean 'meso4'? known: meso4"


def test_taken_name_names_both_owners(registry):
    from metrics.registry import RegistryError

    with pytest.raises(
        RegistryError, match=r"already holds 'meso4', registered by builtins\.dict; builtins\.list"
    ):
        registry.register_module(module_name="meso4")(list)
    assert registry["meso4"] is dict


def test_registering_one_class_twice_is_harmless(registry):
    registry.register_module(module_name="meso4")(dict)
    assert registry["meso4"] is dict


def test_importing_detectors_fills_the_registries():
    import detectors
    from loss import LOSSFUNC
    from networks import BACKBONE

    assert detectors.DETECTOR["meso4"] is detectors.Meso4Detector
    assert set(BACKBONE.data) == {"meso4"}
    assert set(LOSSFUNC.data) == {"cross_entropy"}
    assert set(detectors.DETECTOR.data) == {"effort_finetune", "meso4"}
