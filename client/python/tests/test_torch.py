"""optimd.torch: parity with torch.optim, and what else the optimizer promises."""
from __future__ import annotations

import copy
import threading
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import optimd  # noqa: E402
import optimd.torch  # noqa: E402

STEPS = 200


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Tanh(),
                               torch.nn.Linear(12, 3)).to(dtype)


def batch(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    return x.to(dtype), y.to(dtype)


def loss_of(model, seed, dtype=torch.float32):
    x, y = batch(seed, dtype)
    return torch.nn.functional.mse_loss(model(x), y)


# The daemon's profile, and how torch is asked for the same.
PROFILES = [
    ("torch.sgd(lr=0.05)", "SGD", {"lr": 0.05}),
    ("torch.sgd(lr=0.05) + decay(0.01)", "SGD", {"lr": 0.05, "weight_decay": 0.01}),
    ("torch.momentum(lr=0.02, momentum=0.9)", "SGD", {"lr": 0.02, "momentum": 0.9}),
    ("torch.nag(lr=0.02, momentum=0.9)", "SGD",
     {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    ("torch.adagrad(lr=0.05)", "Adagrad", {"lr": 0.05}),
    ("torch.rmsprop(lr=0.005)", "RMSprop", {"lr": 0.005}),
    ("torch.rmsprop(lr=0.005, momentum=0.9)", "RMSprop", {"lr": 0.005, "momentum": 0.9}),
    ("torch.rmsprop(lr=0.005, centered=true)", "RMSprop",
     {"lr": 0.005, "centered": True}),
    ("torch.adadelta", "Adadelta", {}),
    ("torch.adam(lr=0.01)", "Adam", {"lr": 0.01}),
    ("torch.adam(lr=0.01) + decay(0.01)", "Adam", {"lr": 0.01, "weight_decay": 0.01}),
    ("torch.adamw(lr=0.01)", "AdamW", {"lr": 0.01}),
    ("torch.adamw(lr=0.01, beta1=0.8, beta2=0.95)", "AdamW",
     {"lr": 0.01, "betas": (0.8, 0.95)}),
    ("torch.adamax(lr=0.01)", "Adamax", {"lr": 0.01}),
    ("torch.nadam(lr=0.005)", "NAdam", {"lr": 0.005, "foreach": True}),
    ("torch.amsgrad(lr=0.01)", "Adam", {"lr": 0.01, "amsgrad": True}),
    ("torch.radam(lr=0.01)", "RAdam", {"lr": 0.01}),
]


def vector(model):
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@pytest.mark.parametrize("specification, kind, options", PROFILES,
                         ids=[p[0] for p in PROFILES])
def test_parity_of_a_profile(daemon, specification, kind, options):
    """The same gradients for 200 steps: as near to torch in fp64 as torch in fp32 is, but
    for a factor of two (and one rounding of the largest weight)."""
    ours, t32, t64 = network(), network(), network(dtype=torch.float64)
    with torch.no_grad():
        for a, b in zip(t64.parameters(), ours.parameters()):
            a.copy_(b.double())
    make = getattr(torch.optim, kind)
    plain = make(t32.parameters(), **options)
    exact = make(t64.parameters(), **options)
    worst_ours = worst_theirs = 0.0
    with optimd.torch.Optimizer(ours.named_parameters(), daemon.unix, specification,
                                model="m") as opt:
        for step in range(STEPS):
            exact.zero_grad()
            loss_of(t64, step, torch.float64).backward()
            for a, b, c in zip(t64.parameters(), t32.parameters(), ours.parameters()):
                a.grad = a.grad.float().double()
                b.grad = a.grad.float()
                c.grad = a.grad.float()
            for optimizer in (exact, plain, opt):
                optimizer.step()
            assert opt.result.step == step + 1
            worst_ours = max(worst_ours, (vector(ours) - vector(t64)).abs().max().item())
            worst_theirs = max(worst_theirs, (vector(t32) - vector(t64)).abs().max().item())
    rounding = vector(t64).abs().max().item() * 2 ** -23
    assert worst_ours <= 2 * worst_theirs + rounding, (worst_ours, worst_theirs)


@pytest.mark.parametrize("specification, kind, options", [PROFILES[2], PROFILES[9]],
                         ids=["momentum", "adam"])
def test_parity_of_a_training(daemon, specification, kind, options):
    """Each computes its own gradients; and torch goes on from the daemon's state."""
    ours, theirs = network(), network()
    plain = getattr(torch.optim, kind)(theirs.parameters(), **options)
    with optimd.torch.Optimizer(ours.named_parameters(), daemon.tcp, specification,
                                model="m") as opt:
        for step in range(STEPS):
            for model, optimizer in ((ours, opt), (theirs, plain)):
                optimizer.zero_grad()
                loss_of(model, step).backward()
                optimizer.step()
        assert (vector(ours) - vector(theirs)).abs().max() < 1e-5
        copied = copy.deepcopy(ours)
        taken = getattr(torch.optim, kind)(copied.parameters(), **options)
        opt.copy_state_to(taken)
        for step in range(STEPS, STEPS + 20):
            for model, optimizer in ((ours, opt), (copied, taken)):
                optimizer.zero_grad()
                loss_of(model, step).backward()
                optimizer.step()
        assert (vector(ours) - vector(copied)).abs().max() < 1e-6


def test_sparse_embedding(daemon):
    def make():
        torch.manual_seed(1)
        return torch.nn.EmbeddingBag(50, 4, sparse=True, mode="sum")

    ours, theirs = make(), make()
    plain = torch.optim.SparseAdam(list(theirs.parameters()), lr=0.01)
    with optimd.torch.Optimizer(ours.named_parameters(), daemon.unix,
                                "torch.sparse_adam(lr=0.01)", model="m",
                                sparse=["weight"]) as opt:
        for step in range(50):
            bags = torch.randint(0, 50, (8, 3), generator=torch.Generator().manual_seed(step))
            for model, optimizer in ((ours, opt), (theirs, plain)):
                optimizer.zero_grad()
                model(bags).pow(2).mean().backward()
                optimizer.step()
        assert (vector(ours) - vector(theirs)).abs().max() < 1e-6
        dense = network()
        with pytest.raises(TypeError, match="sparse"):
            ours.weight.grad = torch.ones(50, 4)
            opt.step()
        del dense
    forgotten = make()
    with optimd.torch.Optimizer(forgotten.named_parameters(), daemon.unix, "sgd(lr=1)",
                                model="n") as opt:
        forgotten(torch.tensor([[1, 2]])).sum().backward()
        with pytest.raises(TypeError, match=r"say\s+sparse=\['weight'\]"):
            opt.step()


def test_workers_have_equal_weights(daemon):
    """However they were seeded, and whichever way they reach the daemon."""
    models = [network(seed) for seed in range(3)]
    failed = []
    policy = optimd.Policy(min_workers=3)

    def train(i):
        try:
            address = daemon.tcp if i == 0 else daemon.unix
            with optimd.torch.Optimizer(models[i].named_parameters(), address,
                                        "torch.adamw(lr=1e-2)", model="m", worker=f"w{i}",
                                        policy=policy, timeout=30) as opt:
                for step in range(20):
                    opt.zero_grad()
                    loss_of(models[i], 100 * i + step).backward()
                    opt.step(samples=16)
                opt.barrier()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=train, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert torch.equal(vector(models[0]), vector(models[1]))
    assert torch.equal(vector(models[0]), vector(models[2]))


def test_groups_become_patterns(daemon):
    ours, theirs = network(), network()
    names = dict(ours.named_parameters())
    decays = [(n, p) for n, p in names.items() if n.endswith("weight")]
    others = [(n, p) for n, p in names.items() if n.endswith("bias")]
    plain = torch.optim.AdamW(
        [{"params": [p for n, p in theirs.named_parameters() if n.endswith("weight")]},
         {"params": [p for n, p in theirs.named_parameters() if n.endswith("bias")],
          "weight_decay": 0.0, "lr": 0.02}], lr=0.01)
    with optimd.torch.Optimizer(
            [{"params": decays}, {"params": others, "weight_decay": 0.0, "lr_scale": 2}],
            daemon.tcp, "torch.adamw(lr=0.01)", model="m") as opt:
        assert '"*.bias"' in opt.specification
        assert len(opt.param_groups) == 2
        for step in range(30):
            for model, optimizer in ((ours, opt), (theirs, plain)):
                optimizer.zero_grad()
                loss_of(model, step).backward()
                optimizer.step()
        assert (vector(ours) - vector(theirs)).abs().max() < 1e-5
    with pytest.raises(TypeError, match="'betas', which cannot differ"):
        optimd.torch.Optimizer([{"params": decays, "betas": (0.1, 0.2)}], daemon.tcp,
                               "adam", model="x")


def test_missing_gradients(daemon):
    ours, theirs = network(), network()
    plain = torch.optim.Adam(theirs.parameters(), lr=0.01)
    with optimd.torch.Optimizer(ours.named_parameters(), daemon.unix, "torch.adam(lr=0.01)",
                                model="m") as opt:
        with pytest.raises(optimd.FailedPrecondition, match=r"rest\(\)"):
            opt.step()
        for step in range(10):
            for model, optimizer in ((ours, opt), (theirs, plain)):
                optimizer.zero_grad(set_to_none=True)
                loss_of(model, step).backward()
                if step % 2:
                    model[0].weight.grad = None
                optimizer.step()
        assert (vector(ours) - vector(theirs)).abs().max() < 1e-6
        opt.rest()
    with optimd.torch.Optimizer(ours.named_parameters(), daemon.unix, "momentum(lr=0.1)",
                                model="zero", unused="zero") as opt:
        opt.zero_grad(set_to_none=True)
        opt.step()
        assert opt.result.step == 1


def test_other_dtypes_and_orders_in_memory(daemon):
    """Masters are the daemon's: tiny steps add up that bf16 itself would lose."""
    weight = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    turned = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    assert not turned.is_contiguous()
    with optimd.torch.Optimizer([("w", weight), ("t", turned)], daemon.unix, "sgd(lr=1e-4)",
                                model="m") as opt:
        for _ in range(300):
            weight.grad = torch.ones_like(weight)
            turned.grad = torch.ones(2, 3).T
            opt.step()
        assert weight.dtype is torch.bfloat16 and torch.all(weight < 0.98)
        expected = torch.arange(6.0).reshape(2, 3).T - 0.03
        assert torch.allclose(turned, expected, atol=1e-5)
    image = torch.nn.Parameter(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last))
    before = image.detach().clone()
    with optimd.torch.Optimizer([("i", image)], daemon.unix, "sgd(lr=1)", model="i") as opt:
        gradient = torch.randn(2, 3, 4, 4)
        image.grad = gradient.to(memory_format=torch.channels_last)
        opt.step()
        assert torch.equal(image, before - gradient)
        image.grad = torch.ones(1).expand(2, 3, 4, 4)
        opt.step()
        assert torch.equal(image, before - gradient - 1)


def test_tied_weights_closures_and_hooks(daemon):
    first = torch.nn.Linear(4, 4)
    second = torch.nn.Linear(4, 4)
    second.weight = first.weight
    model = torch.nn.Sequential(first, second)
    with optimd.torch.Optimizer(model.named_parameters(), daemon.unix, "sgd(lr=0.1)",
                                model="m") as opt:
        assert list(opt.model.tensors) == ["0.weight", "0.bias", "1.bias"]

        def closure():
            opt.zero_grad()
            loss = model(torch.ones(2, 4)).pow(2).mean()
            loss.backward()
            return loss

        before = opt.step(closure, samples=2)
        for _ in range(20):
            after = opt.step(closure, samples=2)
        assert after < before
    wrapped = torch.nn.DataParallel(network())
    with optimd.torch.Optimizer(wrapped.named_parameters(), daemon.unix, "sgd(lr=0.1)",
                                model="wrapped") as opt:
        assert "0.weight" in opt.model.tensors


def test_what_is_refused(daemon):
    model = network()
    with pytest.raises(TypeError, match="named_parameters"):
        optimd.torch.Optimizer(model.parameters(), daemon.tcp, "sgd", model="m")
    with pytest.raises(ValueError, match="initial is 'x'"):
        optimd.torch.Optimizer(model.named_parameters(), daemon.tcp, "sgd", model="m",
                               initial="x")
    with pytest.raises(LookupError):
        optimd.torch.Optimizer(model.named_parameters(), daemon.tcp, "sgd", model="m",
                               initial="pull")
    model[0].bias.requires_grad = False
    with optimd.torch.Optimizer(model.named_parameters(), daemon.tcp, "sgd(lr=0.1)",
                                model="m") as opt:
        assert "0.bias" not in opt.model.tensors
        loss_of(model, 0).backward()
        opt.step()
        model[0].bias.requires_grad = True
        with pytest.raises(optimd.FailedPrecondition, match="'0.bias' was frozen"):
            opt.step()
        model[0].bias.requires_grad = False
        model[0].weight.requires_grad = False
        with pytest.raises(optimd.FailedPrecondition, match="'0.weight' does not require"):
            opt.step()
        model[0].weight.requires_grad = True
        with pytest.raises(optimd.FailedPrecondition, match="fixed"):
            opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
        with pytest.raises(TypeError, match="one process"):
            copy.deepcopy(opt)
        opt.param_groups[0]["lr"] = 0.5
        with pytest.raises(optimd.FailedPrecondition, match="was set to 0.5; the daemon's"):
            opt.step()
        assert opt.lr == pytest.approx(0.1)
        opt.step()
        with pytest.raises(optimd.InvalidArgument, match="tensor '0.bias' is None there"):
            optimd.torch.Optimizer(network().named_parameters(), daemon.tcp, "sgd",
                                   model="m", initial="pull")
        model[2].weight.grad.fill_(float("nan"))
        with pytest.raises(optimd.InvalidArgument, match="2.weight"):
            opt.step()
        model[2].weight.data = torch.zeros(2, 12)
        model[2].weight.grad = None
        with pytest.raises(optimd.FailedPrecondition, match="'2.weight' has the shape"):
            opt.step()
        text = repr(opt)
        assert "'m'" in text and daemon.tcp in text and "sgd" in text and "lr: 0.1" in text


def test_rates(daemon):
    model = network()
    with optimd.torch.Optimizer(model.named_parameters(), daemon.tcp, "sgd(lr=0.1)",
                                model="m", lead=True) as opt:
        scheduler = torch.optim.lr_scheduler.StepLR(opt, 2)
        for _ in range(4):
            loss_of(model, 0).backward()
            opt.step()
            scheduler.step()
        opt.step()
        assert opt.lr == pytest.approx(0.001)
        assert len(opt.model.describe().changes) == 2
        assert isinstance(optimd.torch.constant(opt), torch.optim.lr_scheduler.LambdaLR)


@pytest.mark.parametrize("make", [
    lambda o: torch.optim.lr_scheduler.StepLR(o, 3, gamma=0.5),
    lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 8, power=2.0),
    lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, eta_min=0.01),
    lambda o: torch.optim.lr_scheduler.LinearLR(o, 1 / 5, total_iters=4),
], ids=["step", "exponential", "polynomial", "cosine", "warmup"])
def test_schedules_of_torch_are_terms(daemon, make):
    plain = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(plain)
        term = optimd.torch.schedule(scheduler)
    with optimd.connect(daemon.tcp) as ps:
        model = ps.create("m", "sgd(lr=0.1) + " + term, {"w": (1,)})
        for _ in range(12):
            assert model.describe().lr == pytest.approx(plain.param_groups[0]["lr"], 1e-9)
            model.push({"w": [1.0]})
            plain.step()
            scheduler.step()


def test_schedules_without_a_counterpart():
    plain = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(TypeError, match="OneCycleLR has no counterpart"):
        optimd.torch.schedule(torch.optim.lr_scheduler.OneCycleLR(plain, 1.0, 10))
    with pytest.raises(TypeError, match="LinearLR from 0.5"):
        optimd.torch.schedule(torch.optim.lr_scheduler.LinearLR(plain, 0.5))


def test_eval_weights_and_state(daemon, tmp_path):
    model = network()
    with optimd.torch.Optimizer(model.named_parameters(), daemon.unix,
                                "adam(lr=0.01) + lookahead(5)", model="m") as opt:
        for step in range(7):
            opt.zero_grad()
            loss_of(model, step).backward()
            opt.step()
        fast = vector(model)
        with opt.eval_weights():
            assert not torch.equal(vector(model), fast)
        assert torch.equal(vector(model), fast)
        state = opt.state_dict()
        assert state["optimd"]["step"] == 7 and state["optimd"]["names"][0] == "0.weight"
        assert state["state"][0]["exp_avg"].shape == (12, 6)
        assert float(state["state"][3]["step"]) == 7
        opt.load_state_dict(state)
        opt.save(tmp_path / "m.safetensors")
        assert (tmp_path / "m.safetensors").stat().st_size > 1000
        loss_of(model, 8).backward()
        opt.step()
        with pytest.raises(optimd.FailedPrecondition, match="of step 7, and model 'm' is at"):
            opt.load_state_dict(state)
        with pytest.raises(NotImplementedError):
            opt.load_state_dict(torch.optim.Adam(model.parameters()).state_dict())


def test_dropped_and_skipped(daemon):
    one, two = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    policy = optimd.Policy(min_workers=2, backup=1)
    with optimd.torch.Optimizer([("w", one)], daemon.tcp, "sgd(lr=1) + nonfinite(skip)",
                                model="m", worker="w0", policy=policy) as a, \
            optimd.torch.Optimizer([("w", two)], daemon.tcp, "sgd(lr=1) + nonfinite(skip)",
                                   model="m", worker="w1", policy=policy) as b:
        one.grad = torch.ones(2)
        a.step()
        assert a.result.fate is optimd.Fate.APPLIED
        two.grad = torch.ones(2)
        with pytest.warns(RuntimeWarning, match="gradient was not used"):
            b.step()
        assert b.dropped == 1 and b.result.reason
        assert torch.equal(one, two)  # it goes on from the others' weights
        one.grad = torch.full((2,), float("inf"))
        a.step()
        assert a.skipped == 1 and a.result.fate is optimd.Fate.SKIPPED


# ------------------------------------------------------------------------- local steps


def test_local_is_lookahead(daemon):
    """One worker, k=5: the same bits as the daemon's Lookahead."""
    local, remote = network(), network()
    with optimd.torch.Local(local.named_parameters(), daemon.unix, "adam(lr=0.01)",
                            model="local", outer="lookahead", k=5) as a, \
            optimd.torch.Optimizer(remote.named_parameters(), daemon.unix,
                                   "adam(lr=0.01) + lookahead(5, alpha=0.5)",
                                   model="remote") as b:
        for step in range(23):
            for model, optimizer in ((local, a), (remote, b)):
                optimizer.zero_grad()
                loss_of(model, step).backward()
                optimizer.step()
            assert torch.equal(vector(local), vector(remote)), step
            assert a.result.synced == (step % 5 == 4)
        assert a.result.epochs == 4 and not a.owes
        assert a.sync().synced and "lookahead" not in repr(a)
        moved = a.client.usage()
        kept = local[0].weight.data
    assert moved.pushes == 5
    # The parameters have memory of their own again, and what was seen stays readable.
    assert kept.sum().isfinite()
    with torch.no_grad():
        local[0].weight.zero_()
    with pytest.raises(optimd.FailedPrecondition):
        a.step()


def test_outer_leaves_the_inner_optimizer_alone(daemon):
    ours, theirs = network(), network()
    inner = torch.optim.Adam(ours.parameters(), lr=0.01)
    plain = torch.optim.Adam(theirs.parameters(), lr=0.01)
    slow = [p.detach().clone() for p in theirs.parameters()]
    with optimd.torch.Outer(inner, ours.named_parameters(), daemon.tcp, model="m",
                            outer="lookahead", k=4) as opt:
        assert opt.param_groups is inner.param_groups
        for step in range(10):
            for model, optimizer in ((ours, opt), (theirs, plain)):
                optimizer.zero_grad()
                loss_of(model, step).backward()
                optimizer.step()
            if step % 4 == 3:
                with torch.no_grad():
                    for s, p in zip(slow, theirs.parameters()):
                        s += 0.5 * (p - s)
                        p.copy_(s)
            assert (vector(ours) - vector(theirs)).abs().max() < 1e-5
        assert opt.steps == 10 and opt.result.step == 2 and not opt.owes
        assert opt.sync().step == 3
        assert "Adam" in repr(opt) and "k: 4" in repr(opt)


def test_outer_makes_up_for_a_synchronisation(daemon):
    ours = network()
    inner = torch.optim.SGD(ours.parameters(), lr=0.1)
    policy = optimd.Policy(min_workers=2)
    with optimd.torch.Outer(inner, ours.named_parameters(), daemon.tcp, model="m",
                            outer="local_sgd", k=2, worker="w0", policy=policy,
                            timeout=0.2) as opt:
        loss_of(ours, 0).backward()
        opt.step()
        with pytest.raises(TimeoutError) as failed:
            opt.step()  # nobody else is there
        assert opt.owes and failed.value.result.fate is optimd.Fate.NOT_APPLIED
        way = {n: w.copy() for n, w in opt._way.items()}
        with optimd.connect(daemon.tcp, worker="w1", timeout=10) as ps:
            other = ps.open("m")
            before = other.pull()
            call = other.push_async({n: np.zeros_like(w) for n, w in way.items()})
            opt.step()
            assert call.result().fate is optimd.Fate.APPLIED
        assert not opt.owes
        for name, parameter in ours.named_parameters():
            np.testing.assert_allclose(parameter.detach().numpy(),
                                       before[name] - way[name] * 2 / 3, atol=1e-6)


def test_local_wants_what_it_can_use(daemon):
    with pytest.raises(TypeError, match="use Outer"):
        optimd.torch.Local(network().half().named_parameters(), daemon.tcp, "sgd", model="m")
    with pytest.raises(ValueError, match="k is 0"):
        optimd.torch.Local(network().named_parameters(), daemon.tcp, "sgd", model="m", k=0)
    with pytest.raises(TypeError, match="one group"):
        optimd.torch.Local([{"params": network().named_parameters(), "weight_decay": 1}],
                           daemon.tcp, "sgd", model="m")
