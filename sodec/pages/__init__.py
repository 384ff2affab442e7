"""Pages to open in a browser, whole in one file: no script, font or picture is fetched from anywhere.

    render.py     templates to HTML; pictures to data URIs
    divider.py    pictures under one divider that is dragged, and their details side by side
    *.html        the templates; page.css, divider.css and divider.js go into each page

Nothing here knows of codecs: `sodec.evaluate` fills pages, `sodec.ui` serves one.
"""
