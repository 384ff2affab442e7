"""Web pages that are complete in one file: no script, font or picture is fetched from anywhere.

    render.py     templates to HTML; pictures to data URIs
    divider.py    two pictures with a divider to drag between them, and their details side by side
    *.html        the templates; page.css, divider.css and divider.js are copied into each page

Nothing here knows of codecs: `sodec.evaluate` writes pages, `sodec.ui` serves one.
"""
