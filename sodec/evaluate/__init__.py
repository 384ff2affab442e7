"""Measuring codecs as their users would: bytes on disk, pictures as decoded, time as spent.

    metrics.py   how far a decoded picture is from its original
    codecs.py    the codecs under test behind one small protocol
    run.py       codecs x settings x pictures to rows, rows to means and tables
    bdrate.py    two mean curves to one number, with the range it holds for
    plots.py     curves; sheet.py: crops of codecs at equal bytes, side by side
    compare.py   pictures by several codecs at equal bytes; html.py: those, or a whole evaluation, as one page
    parts.py     what each part of sodec's decoder is worth
    cli.py       `sodec eval`; compare_cli.py: `sodec compare`

The package itself never imports this one.
"""
