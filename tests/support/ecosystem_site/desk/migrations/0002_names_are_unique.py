from django.db import migrations, models


def two_rows(apps, schema_editor):
    """What a data migration does: read and write in the middle of changes to tables."""
    customer = apps.get_model("desk", "Customer").objects.create(name="first")
    apps.get_model("desk", "Ticket").objects.create(customer=customer, title="one")
    apps.get_model("desk", "Ticket").objects.create(customer=customer, title="two")


class Migration(migrations.Migration):
    dependencies = [("desk", "0001_initial")]
    operations = [
        migrations.RunPython(two_rows, migrations.RunPython.noop),
        migrations.AlterField("customer", "name", models.CharField(max_length=100, unique=True)),
        migrations.AddField("ticket", "done", models.BooleanField(default=False)),
    ]
