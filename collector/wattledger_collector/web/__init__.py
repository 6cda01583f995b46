"""The collector's page and API, read only. `app.make_app` joins the parts; nothing here decides a figure."""
