"""What a search says of where it is."""

from reml_sae.discovery import stages


def test_time_left_is_that_of_those_that_are_done(monkeypatch):
    clock = iter([10.0, 14.0, 16.0, 16.0, 17.0])
    monkeypatch.setattr(stages.time, "monotonic", lambda: next(clock))
    said = []
    told = stages.Stages(lambda stage: said.append(str(stage)))
    for number in (1, 2, 3):
        told.enter("start", number, 5)
    told.enter("move: merge")
    told.enter("start", 1, 2)
    assert said == ["start 1 of 5", "start 2 of 5, about 16 s left of these",
                    "start 3 of 5, about 9 s left of these", "move: merge", "start 1 of 2"]
