"""What several readers need."""

import pytest

from stapes.data.corpora.base import language_code


@pytest.mark.parametrize(
    ("tag", "code"),
    [("de", "de"), ("zh-CN", "zh"), ("cmn_hans_cn", "zh"), ("sv-SE", "sv"), ("es_419", "es"), ("yue_hant_hk", "yue")],
)
def test_language_code(tag, code):
    assert language_code(tag) == code
