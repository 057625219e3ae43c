/* test_schedule — learning rates against their formulas, update by update. */
#include <criterion/criterion.h>
#include <math.h>

#include "common/optim/update.h"

static struct opt_spec parse(const char *expression)
{
    struct opt_spec spec;
    struct opt_error error;

    cr_assert_eq(opt_spec_parse(expression, &spec, &error), OPT_OK, "%s", error.text);
    return spec;
}

static void expect(const char *expression, uint64_t T, double lr)
{
    struct opt_spec spec = parse(expression);
    double got = opt_schedule_lr(&spec.options, T);

    cr_expect(fabs(got - lr) <= 1e-15 * (1 + lr), "%s at %llu: %.17g, not %.17g",
              expression, (unsigned long long)T, got, lr);
}

Test(schedule, constant_is_the_base_rate_for_ever)
{
    expect("sgd(lr=0.3)", 1, 0.3);
    expect("sgd(lr=0.3)", UINT64_C(1) << 50, 0.3);
}

Test(schedule, warmup_rises_linearly_and_ends_at_the_base_rate)
{
    expect("sgd(lr=0.3) + warmup(4)", 1, 0.3 / 4);
    expect("sgd(lr=0.3) + warmup(4)", 3, 0.3 * 3 / 4);
    expect("sgd(lr=0.3) + warmup(4)", 4, 0.3);
    expect("sgd(lr=0.3) + warmup(4)", 5, 0.3);
    expect("sgd(lr=0.3) + warmup(1)", 1, 0.3);
}

Test(schedule, clocks_start_at_the_first_update_or_where_the_warmup_ends)
{
    expect("sgd(lr=1) + step(3, gamma=0.5)", 3, 1);
    expect("sgd(lr=1) + step(3, gamma=0.5)", 4, 0.5);
    expect("sgd(lr=1) + step(3, gamma=0.5) + warmup(5)", 7, 1);
    expect("sgd(lr=1) + step(3, gamma=0.5) + warmup(5)", 8, 0.5);
}

Test(schedule, each_follows_its_formula)
{
    for (uint64_t T = 1; T < 30; T++) {
        double n = (double)T - 1, x = fmin(n, 20) / 20;

        expect("sgd(lr=2) + step(7)", T, 2 * pow(0.1, floor(n / 7)));
        expect("sgd(lr=2) + exponential(7, gamma=0.9)", T, 2 * pow(0.9, n / 7));
        expect("sgd(lr=2) + polynomial(20, power=2, end=0.5)", T,
               0.5 + 1.5 * pow(1 - x, 2));
        expect("sgd(lr=2) + cosine(20, end=0.5)", T,
               0.5 + 1.5 * 0.5 * (1 + cos(acos(-1) * x)));
    }
}

Test(schedule, ends_stay_at_the_end)
{
    expect("sgd(lr=2) + polynomial(20, end=0.5)", 21, 0.5);
    expect("sgd(lr=2) + polynomial(20, end=0.5)", 1000, 0.5);
    expect("sgd(lr=2) + cosine(20)", 5000, 0);
}
