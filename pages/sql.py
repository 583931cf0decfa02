"""SQL: any question to the tables of one or several runs, which it can read and nothing else."""


from pages.components import pick, sql_view
from pages.components.frames import part
from pages.components.heading import heading

run = pick.run()
heading(run, "SQL", sql_view.MEANS)
run_ids = sql_view.runs_picker(run)
sql_view.editor(run_ids)
sql_view.schema()


@part(key="sql.answer", every_s=sql_view.LOOK_S if sql_view.is_running() else None)
def body() -> None:
    """One part: it looks again while a query runs, and the rest of the page stays as it is."""
    if sql_view.waiting():
        return
    sql_view.result()


body()
