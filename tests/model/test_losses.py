"""The masked multitask loss: values by hand, masking, and that workers may share a batch in any way."""

import math

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.model.cnn import BANDS, FRAMES, ModelConfig, MultitaskCNN
from mtl_core.model.losses import cross_entropy_sums, label_counts, multitask_loss, task_weights

CLASSES = {"artist": 6, "language": 3}


def test_weights_are_the_papers_rule_unless_given():
    assert task_weights({"artist": 68, "language": 17}) == {"artist": 1.0, "language": 4.0}
    assert task_weights({"artist": 68, "language": 17}, alpha=0.5) == {"artist": 1.0, "language": 0.5}
    assert task_weights({"language": 17}) == {"language": 1.0}
    with pytest.raises(ValueError, match="alpha must be >= 0"):
        task_weights(CLASSES, alpha=-1.0)


def _loss(logits, targets, weights=None):
    mixture = [(1.0, targets)]
    weights = task_weights(CLASSES) if weights is None else weights
    return multitask_loss(cross_entropy_sums(logits, mixture), label_counts(mixture), weights)


def test_value_by_hand():
    """Artists at logits (ln 3, 0) have 3/4 and 1/4, languages at (0, 0) have 1/2; one label is missing."""
    logits = {
        "artist": torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]]),
        "language": torch.zeros(2, 2),
    }
    targets = {"artist": torch.tensor([0, 1]), "language": torch.tensor([1, MISSING])}
    counts = label_counts([(1.0, targets)])
    assert {task: float(count) for task, count in counts.items()} == {"artist": 2.0, "language": 1.0}
    loss = _loss(logits, targets, {"artist": 1.0, "language": 4.0})
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2 + 4 * math.log(2))


def test_without_any_label_there_is_a_graph_and_no_gradient():
    logits = {"artist": torch.randn(3, 6, requires_grad=True), "language": torch.randn(3, 3, requires_grad=True)}
    targets = dict.fromkeys(CLASSES, torch.full((3,), MISSING))
    loss = _loss(logits, targets)
    loss.backward()
    assert loss.item() == 0
    assert all(tensor.grad is not None and not tensor.grad.any() for tensor in logits.values())


def test_alpha_0_gives_the_trunk_the_gradients_of_the_artist_model():
    X_B1TF, targets = _batch()
    gradients = []
    for classes in (CLASSES, {"artist": 6}):
        model = _model(classes)
        own_targets = {task: targets[task] for task in classes}
        _loss(model(X_B1TF), own_targets, task_weights(classes, alpha=0.0)).backward()
        gradients.append([parameter.grad for parameter in model.trunk.parameters()])
        assert all(parameter.grad is not None for parameter in model.parameters())
    for multitask, artist_only in zip(*gradients, strict=True):
        torch.testing.assert_close(multitask, artist_only, rtol=1e-5, atol=1e-7)


def test_sums_ignore_examples_without_a_label():
    logits = {"artist": torch.randn(4, 6)}
    targets = {"artist": torch.tensor([1, MISSING, 2, MISSING])}
    labelled = cross_entropy_sums({"artist": logits["artist"][::2]}, [(1.0, {"artist": torch.tensor([1, 2])})])
    assert torch.allclose(cross_entropy_sums(logits, [(1.0, targets)])["artist"], labelled["artist"])


def test_a_blend_weights_the_losses_and_the_counts_of_its_parts():
    logits = {"artist": torch.randn(2, 6)}
    parts = [{"artist": torch.tensor([1, 4])}, {"artist": torch.tensor([3, MISSING])}]
    mixture = list(zip((0.75, 0.25), parts, strict=True))
    sums = [cross_entropy_sums(logits, [(1.0, part)])["artist"] for part in parts]
    assert torch.allclose(cross_entropy_sums(logits, mixture)["artist"], 0.75 * sums[0] + 0.25 * sums[1])
    assert float(label_counts(mixture)["artist"]) == 0.75 * 2 + 0.25


def test_two_workers_have_the_gradients_of_one(tmp_path):
    """Real gloo processes; worker 1 has no language label at all, and fewer artists than worker 0."""
    context = torch.multiprocessing.spawn(_worker, args=(2, str(tmp_path)), nprocs=2, join=False)
    while not context.join(timeout=60):
        pass
    model, (X_B1TF, targets) = _model(CLASSES), _batch()
    _loss(model(X_B1TF), targets).backward()
    for rank in range(2):
        gradients = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().max() > 0
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


def _batch():
    X_B1TF = torch.rand(8, 1, FRAMES, BANDS, generator=torch.Generator().manual_seed(1))
    artists = torch.tensor([0, 1, 2, 3, 4, MISSING, MISSING, 5])
    languages = torch.tensor([0, 1, MISSING, 2] + [MISSING] * 4)
    return X_B1TF, {"artist": artists, "language": languages}


def _model(classes):
    torch.manual_seed(0)
    return MultitaskCNN(ModelConfig(classes=classes)).eval()  # no dropout, running statistics


def _worker(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    model = torch.nn.parallel.DistributedDataParallel(_model(CLASSES), broadcast_buffers=False)
    X_B1TF, targets = _batch()
    share = slice(rank * 4, rank * 4 + 4)
    mixture = [(1.0, {task: target_B[share] for task, target_B in targets.items()})]
    counts = label_counts(mixture)
    for count in counts.values():
        torch.distributed.all_reduce(count)
    sums = cross_entropy_sums(model(X_B1TF[share]), mixture)
    multitask_loss(sums, counts, task_weights(CLASSES), world_size).backward()
    torch.save({name: parameter.grad for name, parameter in model.module.named_parameters()}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
