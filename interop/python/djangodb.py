"""Django on a database of the tests."""
from urllib.parse import urlsplit


def set_up(url, app):
    """Sets Django up for a database, by the URL that Go has of it, with one app."""
    import django
    from django.conf import settings

    place = urlsplit(url)
    if place.scheme == "sqlite":
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": place.path[1:]}
    else:
        if place.scheme == "mysql":
            import pymysql

            pymysql.install_as_MySQLdb()
        database = {"ENGINE": "django.db.backends." + place.scheme, "NAME": place.path[1:], "USER": place.username,
                    "HOST": place.hostname, "PORT": place.port}
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=[app], USE_TZ=True,
                       DEFAULT_AUTO_FIELD="django.db.models.AutoField")
    django.setup()


def migrate(command=None):
    """Makes the tables of the app."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return {}
