"""A check of HTML pages."""

from html.parser import HTMLParser

VOID = {"meta", "br", "path", "use", "rect", "image", "circle", "line", "img"}


def assert_well_formed(page):
    """Every element is closed, in the right order."""
    parser = _BalancedParser()
    parser.feed(page)
    parser.close()
    assert parser.open == []


class _BalancedParser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
