"""``hyperscale retrofit``: teaches a model DMS."""

from typing import Any

from hyperscale.cli.display.console import make_console
from hyperscale.cli.options import with_options
from hyperscale.retrofit.settings import RetrofitSettings
from hyperscale.utils.hub import silence_transformers


@with_options(RetrofitSettings)
def retrofit(values: dict[str, Any]) -> None:
    """Teach a model DMS: make the checkpoints that `hyperscale run --model OUT --method dms` runs. One GPU."""
    settings = RetrofitSettings.from_options(values)
    console = make_console()

    def report(line: str) -> None:
        console.print(line, highlight=False)

    report("starting …")
    silence_transformers()
    from hyperscale.retrofit.job import run_retrofit

    if console.is_terminal:
        from hyperscale.cli.display.live_training import LiveTraining

        with LiveTraining(console) as live:
            run_retrofit(settings, report, live.show, report_seconds=3.0)
    else:
        run_retrofit(settings, report)
    crs = ",".join(f"{cr:g}" for cr in settings.crs)
    report(f"run it: hyperscale run --model {settings.out} --method dms --cr {crs}")
