"""`sodec ui`: the codec on a page of one's own machine.

trial.py      one upload, coded as the page asks: no gradio, no page
sessions.py   what is held for each open page, and dropped with it
result.py     a trial as HTML
app.py        the page, in gradio, and its server; csp.py: what it tells browsers
cli.py        the command
"""
