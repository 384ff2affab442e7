"""Measures codecs as their users have them: bytes of files, pictures as decoded, times as spent. `sodec eval`.

    metrics.py   how far a decoded picture is from its original
    codecs.py    the codecs under test behind one small protocol
    run.py       every codec at every setting on every picture: rows, means, tables
    bdrate.py    two curves to one number, with the range it holds for
    compare.py   codecs at equal bytes, and the contact sheet
    frechet.py   a distance between sets of pictures
    parts.py     what each part of sodec's decoder is worth
    plots.py     curves, with published points of other codecs
    report.py    all of it as a folder of files, or as one page

The package never imports this one by itself.
"""
