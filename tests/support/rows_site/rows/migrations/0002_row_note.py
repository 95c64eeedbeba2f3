from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("rows", "0001_initial")]
    operations = [
        migrations.AddField(
            model_name="row",
            name="note",
            field=models.CharField(default="", max_length=100),
        ),
    ]
