"""What a network lost: against values worked out by hand and published, and by the shares of draws that intervals cover."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from practise_backends.terms import Interval
from practise_deploy.planning.loss import (
    above_chance,
    estimated_points,
    estimated_share,
    images_to_settle,
    loss_of,
    losses_of,
    mean_of_shares,
    measured_points,
    paired_difference,
    percent,
    temperatures,
)
from practise_deploy.terms import Loss
from samples import releases

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Z2 = 1.959963984540054**2
COVERED = 0.93
"""Of what 95% intervals must cover on average: one that is no exact one, by a few thousand draws."""


def ends(found: Interval) -> tuple[float, float]:
    return found.low, found.high


def covers(found: Interval, truth: float) -> bool:
    return found.low <= truth <= found.high


# Of labelled images.


@pytest.mark.parametrize("images", [1, 25, 100, 1000])
def test_difference_where_nothing_changed_has_the_ends_of_a_single_proportion(images: int):
    """Tango's ends are then z^2 / (n + z^2), as Wilson's of none among n."""
    found = paired_difference(0, 0, images)
    end = 100 * Z2 / (images + Z2)
    assert found.estimate == 0.0
    assert ends(found) == pytest.approx((-end, end))
    assert found.high == pytest.approx(percent(0, images).high)


@pytest.mark.parametrize("images", [5, 40])
def test_difference_where_all_were_lost_ends_at_all(images: int):
    """Of n discordant pairs, all one way, the score is (n - n d) / sqrt(n (1 - d^2)): d = (n - z^2) / (n + z^2)."""
    found = paired_difference(images, 0, images)
    assert (found.estimate, found.high) == (100.0, 100.0)
    assert found.low == pytest.approx(100 * (images - Z2) / (images + Z2))


@pytest.mark.parametrize(
    ("lost", "gained", "images", "low", "high"),
    [
        (1, 7, 21, -51.7, -2.6),  # Fagerland, Lydersen and Laake (2014), airway hyper-responsiveness
        (7, 1, 21, 2.6, 51.7),
    ],
)
def test_difference_has_the_published_interval(lost: int, gained: int, images: int, low: float, high: float):
    found = paired_difference(lost, gained, images)
    assert found.estimate == pytest.approx(100 * (lost - gained) / images)
    assert ends(found) == pytest.approx((low, high), abs=0.06)


def likeliest_score(lost: int, gained: int, images: int, difference: float) -> float:
    """The score at a difference, its nuisance share found by looking instead of by solving."""
    shares = np.linspace(max(0.0, -difference), (1 - difference) / 2, 400_001)[1:-1]
    rest = images - lost - gained
    logs = gained * np.log(shares) + lost * np.log(shares + difference) + rest * np.log(1 - 2 * shares - difference)
    share = float(shares[logs.argmax()])
    variance = images * (2 * share + difference - difference**2)
    return float((lost - gained - images * difference) / math.sqrt(variance))


@pytest.mark.parametrize(("lost", "gained", "images"), [(3, 1, 25), (1, 3, 25), (40, 25, 1000), (2, 2, 100)])
def test_difference_ends_where_the_score_of_the_likeliest_table_is_as_far_as_the_confidence(
    lost: int, gained: int, images: int
):
    found = paired_difference(lost, gained, images)
    assert likeliest_score(lost, gained, images, found.low / 100) == pytest.approx(math.sqrt(Z2), abs=2e-3)
    assert likeliest_score(lost, gained, images, found.high / 100) == pytest.approx(-math.sqrt(Z2), abs=2e-3)


@pytest.mark.parametrize("images", [1, 4, 25, 100])
def test_difference_holds_its_estimate_and_turns_with_lost_and_gained(images: int):
    for lost in range(0, images + 1, max(1, images // 9)):
        for gained in range(0, images - lost + 1, max(1, images // 9)):
            found, turned = paired_difference(lost, gained, images), paired_difference(gained, lost, images)
            assert -100 <= found.low <= found.estimate <= found.high <= 100
            assert found.low < found.high
            assert (turned.estimate, *ends(turned)) == pytest.approx((-found.estimate, -found.high, -found.low))


@pytest.mark.parametrize("images", [25, 100, 1000])
def test_intervals_of_a_difference_cover_it(images: int):
    rng = np.random.default_rng(7)
    known: dict[tuple[int, int], Interval] = {}
    shares = []
    for lost, gained in ((0.01, 0.0), (0.02, 0.005), (0.05, 0.05), (0.1, 0.03), (0.2, 0.05), (0.3, 0.3)):
        drawn = rng.multinomial(images, [lost, gained, 1 - lost - gained], size=1000)
        tables, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
        held = 0
        for (b, c), count in zip(tables.tolist(), times.tolist(), strict=True):
            found = known.setdefault((b, c), paired_difference(b, c, images))
            held += count * covers(found, 100 * (lost - gained))
        shares.append(held / 1000)
    assert np.mean(shares) >= COVERED
    assert min(shares) >= 0.9


def test_measured_loss_is_paired_by_image():
    """Of ten two are lost and one is gained; where both are wrong, differently or not, nothing is."""
    truth = np.zeros(10, np.int64)
    before = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    after = np.array([0, 0, 0, 0, 1, 2, 0, 1, 2, 1])
    assert measured_points(before, after, truth) == paired_difference(2, 1, 10)


def test_share_in_percent_has_its_wilson_interval():
    found = percent(8, 10)
    assert found.estimate == 80.0
    assert ends(found) == pytest.approx((49.02, 94.33), abs=0.01)  # Wilson (1927)


# Means of shares.


@pytest.mark.parametrize(("ones", "images"), [(0, 25), (1, 25), (30, 100), (100, 100)])
def test_mean_of_yes_and_no_has_wilsons_interval(ones: int, images: int):
    found, wilson = mean_of_shares(np.arange(images) < ones), percent(ones, images)
    assert (found.estimate, *ends(found)) == pytest.approx(
        (wilson.estimate / 100, wilson.low / 100, wilson.high / 100), abs=1e-12
    )


def test_mean_of_small_shares_is_known_better_than_one_of_yes_and_no_and_never_better_than_of_nothing():
    small = mean_of_shares(np.where(np.arange(500) < 100, 0.2, 0.0))
    whole = mean_of_shares((np.arange(500) < 20).astype(np.float64))
    assert small.estimate == pytest.approx(whole.estimate) == pytest.approx(0.04)
    assert small.high - small.low < 0.6 * (whole.high - whole.low)
    none, tiny = mean_of_shares(np.zeros(25)), mean_of_shares(np.where(np.arange(25) < 1, 1e-6, 0.0))
    assert none.high == pytest.approx(Z2 / (25 + Z2))
    assert tiny.high == pytest.approx(none.high, rel=1e-3)


@pytest.mark.parametrize("images", [25, 100, 1000])
def test_intervals_of_a_mean_of_shares_cover_it(images: int):
    """Mostly nothing, else a part of one, of any size or mostly small."""
    rng, shares = np.random.default_rng(11), []
    for often in (0.02, 0.05, 0.2, 0.5):
        for a, b in ((1.0, 1.0), (1.0, 4.0), (4.0, 1.0), (0.5, 0.5)):
            drawn = rng.beta(a, b, (400, images)) * (rng.random((400, images)) < often)
            shares.append(np.mean([covers(mean_of_shares(row), often * a / (a + b)) for row in drawn]))
    assert np.mean(shares) >= COVERED
    assert min(shares) >= 0.88


def test_mean_of_shares_stays_between_none_and_all():
    for values in (np.zeros(1), np.ones(1), np.zeros(100), np.ones(100), np.full(30, 0.5), np.full(30, 1e-9)):
        found = mean_of_shares(values)
        assert 0.0 <= found.low <= found.estimate <= found.high <= 1.0 and found.low < found.high


# Without labels.


def drawn_logits(
    rng: np.random.Generator, images: int, spread: float = 2.0, noise: float = 1.2
) -> tuple[Floats, Floats]:
    """A teacher's logits, and those of a student that is off by noise."""
    teacher = spread * rng.normal(size=(images, 10))
    return teacher, teacher + noise * rng.normal(size=teacher.shape)


def probabilities(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def lost_in_truth(teacher: Floats, student: Floats, truth: Floats) -> Floats:
    """By image, the chance that only the teacher is right less the chance that only the student is."""
    rows = np.arange(len(truth))
    return truth[rows, teacher.argmax(1)] - truth[rows, student.argmax(1)]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_estimate_is_what_the_teacher_gives_its_own_answer_less_what_it_gives_the_students(temperature: float):
    """Two classes a logarithm of three apart; the estimate is that of the likely temperature."""
    teacher = np.log(np.array([[3.0, 1.0], [3.0, 1.0], [1.0, 3.0], [3.0, 1.0]]))
    student = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    odds = 3 ** (1 / temperature)
    assert estimated_share(teacher, student, temperature) == pytest.approx((odds - 1) / (odds + 1) / 4)
    likely, _ = temperatures(teacher)
    assert estimated_points(teacher, student).estimate == pytest.approx(100 * estimated_share(teacher, student, likely))


@pytest.mark.parametrize(("spread", "worth"), [(0.5, 0.70), (1.0, 0.73), (4.0, 0.83), (40.0, 0.89)])
def test_confidence_is_taken_for_what_it_was_found_to_be_worth_in_the_middle_and_at_its_best(
    spread: float, worth: float
):
    """Networks that doubt are surer than they say, those that are sure less so; nowhere is the sharp end softer than they say."""
    teacher, _ = drawn_logits(np.random.default_rng(2), 4000, spread)
    likely, sharp = temperatures(teacher)
    said = float(probabilities(teacher).max(1).mean())
    assert float(probabilities(teacher / likely).max(1).mean()) == pytest.approx(0.65 + 0.25 * said, abs=1e-6)
    assert 0.65 + 0.25 * said == pytest.approx(worth, abs=0.02)
    best = float(probabilities(teacher / sharp).max(1).mean())
    assert best == pytest.approx(max(said, 0.69 + 0.28 * said), abs=1e-6) and sharp <= 1 + 1e-6 and sharp <= likely


def test_estimate_does_not_hang_on_where_the_logits_lie_nor_on_how_large_they_are():
    rng = np.random.default_rng(3)
    teacher, student = drawn_logits(rng, 50)
    moved = estimated_points(teacher + 1000.0, student)
    assert (moved.estimate, *ends(moved)) == pytest.approx(
        (estimated_points(teacher, student).estimate, *ends(estimated_points(teacher, student)))
    )
    sure = estimated_points(1e9 * teacher, student)
    assert sure.estimate == pytest.approx(100 * np.mean(teacher.argmax(1) != student.argmax(1)))
    assert np.isfinite([sure.low, sure.high]).all()


def test_estimate_where_all_answers_are_the_same_leaves_room_for_a_loss():
    teacher, _ = drawn_logits(np.random.default_rng(0), 25)
    found = estimated_points(teacher, 3 * teacher)
    end = 100 * Z2 / (25 + Z2)
    assert found.estimate == 0.0 and ends(found) == pytest.approx((-end, end))


def test_interval_allows_for_a_teacher_that_is_surer_than_it_says():
    """Its upper end is that of the probabilities at their sharpest, never below it."""
    teacher, student = drawn_logits(np.random.default_rng(5), 400)
    found = estimated_points(teacher, student)
    sharpest = 100 * estimated_share(teacher, student, temperatures(teacher)[1])
    assert found.low < found.estimate < sharpest < found.high


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.8, 1.5])
def test_estimate_is_unbiased_and_its_interval_holds_the_loss_where_a_confidence_is_worth_what_it_is_taken_for(
    noise: float,
):
    """The labels are drawn from the teacher's probabilities at the likely temperature; a few of very many images are seen."""
    rng = np.random.default_rng(1)
    teacher, student = drawn_logits(rng, 40_000, noise=noise)
    truth = probabilities(teacher / temperatures(teacher)[0])
    labels = (rng.random((len(teacher), 1)) < truth.cumsum(1)).argmax(1)
    lost = 100.0 * (teacher.argmax(1) == labels) - 100.0 * (student.argmax(1) == labels)
    held, errors = [], []
    for images in (25, 100, 400):
        for _ in range(200):
            part = rng.integers(0, len(teacher), images)
            found = estimated_points(teacher[part], student[part])
            held.append(covers(found, lost.mean()))
            errors.append(found.estimate - lost[part].mean())
    assert (
        abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(len(errors)) + 0.2
    )  # the temperature of few images is drawn too
    assert np.mean(held) >= COVERED


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_teacher_that_is_less_sure_than_it_is_taken_for_errs_on_the_safe_side_and_the_interval_allows_for_the_contrary(
    noise: float,
):
    teacher, student = drawn_logits(np.random.default_rng(4), 2000, noise=noise)
    likely, sharp = temperatures(teacher)
    found = estimated_points(teacher, student)

    def truth(temperature: float) -> float:
        return 100 * float(lost_in_truth(teacher, student, probabilities(teacher / temperature)).mean())

    assert found.high > found.estimate > truth(2 * likely) + 0.5
    assert found.estimate < truth(sharp) < found.high


# A loss.


def test_loss_says_how_it_is_known_and_on_how_many_images_the_answers_are_the_same():
    teacher, student = drawn_logits(np.random.default_rng(9), 200)
    labels = teacher.argmax(1)
    same = int((labels == student.argmax(1)).sum())
    known, guessed = loss_of(teacher, student, labels), loss_of(teacher, student)
    assert known.points == measured_points(labels, student.argmax(1), labels) == paired_difference(200 - same, 0, 200)
    assert guessed.points == estimated_points(teacher, student)
    assert (known.estimated, guessed.estimated) == (False, True)
    assert known.agreement_percent == guessed.agreement_percent == percent(same, 200)
    assert known.images == guessed.images == 200
    assert {known.points.confidence, guessed.points.confidence} == {0.95}


@pytest.mark.parametrize("labelled", [True, False])
def test_loss_takes_floats_of_any_width(labelled: bool):
    teacher, student = drawn_logits(np.random.default_rng(9), 40)
    labels = teacher.argmax(1) if labelled else None
    wide, narrow = (loss_of(teacher.astype(kind), student.astype(kind), labels) for kind in (np.float64, np.float32))
    assert narrow.points.estimate == pytest.approx(wide.points.estimate, abs=1e-4)
    assert ends(narrow.points) == pytest.approx(ends(wide.points), abs=1e-4)


# How many images would settle it.


def of_shares(shares: Floats) -> Loss:
    found = mean_of_shares(shares)
    points = Interval(
        estimate=100 * found.estimate, low=100 * found.low, high=100 * found.high, confidence=found.confidence
    )
    return releases.loss(points, images=len(shares))


def test_nothing_lost_among_25_images_is_settled_by_about_188():
    """z^2 / (n + z^2) is 0.02 at n = 49 z^2, which is 188.2."""
    for found in (of_shares(np.zeros(25)), releases.loss(paired_difference(0, 0, 25), images=25)):
        assert images_to_settle(found, 2.0) == 189
        assert found.points.high > 2.0
    assert paired_difference(0, 0, 188).high > 2.0 >= paired_difference(0, 0, 189).high


@pytest.mark.parametrize("demand", [1.0, 1.9, 2.0])
def test_no_number_of_images_settles_a_loss_that_is_estimated_at_the_demand_or_above(demand: float):
    lost = releases.loss(paired_difference(2, 0, 100), images=100)
    assert lost.points.estimate == 2.0
    assert images_to_settle(lost, demand) is None
    assert images_to_settle(lost, 2.1) is not None


@pytest.mark.parametrize(("lost", "images", "demand"), [(1, 100, 2.0), (1, 100, 1.5), (3, 200, 2.0), (20, 1000, 2.5)])
def test_so_many_images_with_the_same_losses_bring_the_upper_end_down_to_the_demand(
    lost: int, images: int, demand: float
):
    """Images are lost as a whole, so that the demand lies between the ends of the two numbers around the same share."""
    needed = images_to_settle(of_shares((np.arange(images) < lost).astype(np.float64)), demand)
    assert needed is not None and needed > images
    share = lost / images * needed
    fewer, more = (mean_of_shares(np.arange(needed) < round(count)) for count in (share - 0.5, share + 0.5))
    assert fewer.high < demand / 100 < more.high


@pytest.mark.parametrize("demand", [1.2, 1.4, 1.6])
def test_so_many_images_with_the_same_parts_lost_are_enough(demand: float):
    """The image that is counted as lost weighs less among more images: the upper end comes to lie below the demand."""
    pattern = np.where(np.arange(40) == 20, 0.4, 0.0)
    needed = images_to_settle(of_shares(np.tile(pattern, 10)), demand)
    assert needed is not None and needed > 400
    assert 0.9 * demand / 100 < mean_of_shares(np.resize(pattern, needed)).high <= demand / 100


def test_fewer_images_settle_what_the_interval_shows_already():
    found = of_shares(np.zeros(1000))
    assert found.points.high < 2.0
    assert images_to_settle(found, 2.0) == 189


def test_gain_is_settled_too():
    gained = releases.loss(paired_difference(0, 1, 50), images=50)
    assert gained.points.estimate < 0 < gained.points.high
    needed = images_to_settle(gained, 2.0)
    assert needed is not None and 50 < needed < 300


@pytest.mark.parametrize(
    ("correct", "images", "classes", "told"),
    [
        (10, 100, 10, False),
        (15, 100, 10, False),
        (18, 100, 10, True),
        (2, 25, 1000, True),
        (6, 8, 2, False),
        (60, 100, 2, True),
    ],
)
def test_more_than_chance_is_what_chance_surely_does_not_give(correct: int, images: int, classes: int, told: bool):
    assert above_chance(correct, images, classes) == told


@pytest.mark.parametrize("knows", [True, False])
def test_loss_says_whether_the_original_knows_the_labels(knows: bool):
    teacher, student = drawn_logits(np.random.default_rng(9), 200)
    answers = teacher.argmax(1)
    labels = answers if knows else np.random.default_rng(1).permutation(answers)
    assert loss_of(teacher, student, labels).above_chance == knows
    assert loss_of(teacher, student).above_chance  # there is no label to tell it by


# Of several students on the same few images.


def students(generator: np.random.Generator, images: int, worth: float) -> tuple[Floats, list[Floats], Ints]:
    """An original, students that change more and more of its answers, and labels: of changed answers this share more were right than are."""
    original = generator.normal(size=(images, 4)) * 3
    labels = original.argmax(1)
    found = []
    for share in (0.1, 0.2, 0.4):
        logits = original.copy()
        changed = np.arange(images) < share * images
        logits[changed] = np.roll(logits[changed], 1, axis=1)
        found.append(logits)
    wrong = generator.random(images) > worth  # neither is right
    return original, found, np.where(wrong, (labels + 2) % 4, labels)


@pytest.mark.parametrize("worth", [0.3, 0.8])
def test_one_ratio_of_labels_to_probabilities_scales_every_estimate(worth: float):
    original, found, labels = students(np.random.default_rng(0), 400, worth)
    losses = losses_of(original, found, labels)
    measured = [loss_of(original, each, labels).points for each in found]
    estimated = [estimated_points(original, each).estimate for each in found]
    ratio = sum(each.estimate for each in measured) / sum(estimated)
    assert [each.points.estimate for each in losses] == pytest.approx([ratio * each for each in estimated])
    assert [ends(each.points) for each in losses] == [ends(each) for each in measured]
    assert not any(each.estimated for each in losses)


def test_ratio_estimates_vary_less_than_labels_do():
    """Of many draws of images: the first student's losses, by labels alone and by the ratio over all."""
    alone, together = [], []
    for seed in range(200):
        original, found, labels = students(np.random.default_rng(seed), 60, 0.6)
        alone.append(loss_of(original, found[0], labels).points.estimate)
        together.append(losses_of(original, found, labels)[0].points.estimate)
    assert np.std(together) < 0.8 * np.std(alone)
    assert np.mean(together) == pytest.approx(np.mean(alone), abs=0.5)


def test_labels_that_say_that_nothing_is_lost_do_not_make_every_student_free():
    original, found, labels = students(np.random.default_rng(0), 400, 0.0)
    first, _, last = losses_of(original, found, labels)
    assert 0 <= first.points.estimate < last.points.estimate
