"""A run as one page: `write(folder)` makes report.html, report.md and report.json.

run_contents.py, evaluation_details.py, training_events.py   the run folder → typed values
text.py, arms_table.py, training_text.py, caveats.py         values → sentences and tables
charts.py                                                    values → drawings
page.py                                                      all of it → the three files
sweep.py, sweep_chart.py                                     a sweep's folder → its page and chart
inspection.py                                                an inspection of data → its page
exports.py                                                   what has left the run, and how it was found
"""

from luthier.report.page import write

__all__ = ["write"]
