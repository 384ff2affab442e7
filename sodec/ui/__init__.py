"""`sodec ui`: the codec on a page of one's own machine.

trial.py      one upload, coded as the page asks: no gradio, no page
uploads.py    files on their way from the browser to an event
sessions.py   what is held for each open page, and dropped with it
result.py     a trial as HTML
events.py     what happens when something on the page is dropped, moved or pressed
app.py        the page, in gradio
guard.py      which requests reach gradio, and what browsers are told
server.py     the socket and the threads
"""
