"""The local page: files dropped in a browser, judged here, nothing sent anywhere."""
