"""The state of a training on disk: saved and loaded whole, and the same on every worker."""

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from builders.train_state import completed_epochs

from mtl_core.pipelines.training.train_state import TrainState, load_state, save_state
from mtl_core.storage.location import Location


def _trained(seed):
    """A model and its optimizer after one update."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def _state(model, epochs):
    return TrainState(
        history=[{"epoch": epoch, "validation_loss": None, "top1": {}} for epoch in range(1, epochs + 1)],
        best_loss=0.5,
        best_epoch=epochs,
        best_weights={name: tensor.clone() for name, tensor in model.state_dict().items()},
    )


def test_loading_gives_back_what_was_saved(root):
    file = Location(root) / "state.pt"
    assert completed_epochs(file) == 0
    model, optimizer = _trained(0)
    for epochs in (1, 2):  # the file is replaced
        save_state(file, _state(model, epochs), model, optimizer)
        assert completed_epochs(file) == epochs
    other, other_optimizer = _trained(1)
    state = load_state(file, other, other_optimizer, rank=0, world_size=1)
    assert (state.best_loss, state.best_epoch, len(state.history)) == (0.5, 2, 2)
    assert torch.equal(state.best_weights["weight"], model.weight)
    assert torch.equal(other.weight, model.weight)
    moments = [opt.state_dict()["state"][0]["exp_avg"] for opt in (optimizer, other_optimizer)]
    assert torch.equal(*moments)


def test_without_a_file_a_training_starts_anew(tmp_path):
    model, optimizer = _trained(0)
    before = model.weight.detach().clone()
    state = load_state(Location(str(tmp_path / "state.pt")), model, optimizer, rank=0, world_size=1)
    assert state == TrainState()
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("saved", [True, False])
def test_every_worker_has_the_state_that_rank_0_reads(tmp_path, saved):
    """Rank 1 finds a newer file, as where a killed worker was still writing."""
    for rank, seed in enumerate((0, 5)):
        model, optimizer = _trained(seed)
        if saved or rank == 1:
            save_state(Location(str(tmp_path / f"{rank}.state")), _state(model, rank + 1), model, optimizer)
    context = torch.multiprocessing.spawn(_worker, args=(str(tmp_path),), nprocs=2, join=False)
    while not context.join(timeout=60):
        pass
    results = [torch.load(tmp_path / f"{rank}.result", weights_only=True) for rank in range(2)]
    assert [result["epochs"] for result in results] == [int(saved)] * 2
    if saved:
        assert torch.equal(results[0]["weight"], results[1]["weight"])


def _worker(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model, optimizer = _trained(10 + rank)
    state = load_state(Location(f"{folder}/{rank}.state"), model, optimizer, rank=rank, world_size=2)
    torch.save({"epochs": len(state.history), "weight": model.weight.detach()}, f"{folder}/{rank}.result")
    torch.distributed.destroy_process_group()
