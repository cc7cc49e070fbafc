import jax
import jax.numpy as jnp
import pytest

from jaxunlearn.gradients.flops import matrix_flops


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def counted(function, *shapes):
    return matrix_flops(jax.make_jaxpr(function)(*shapes))


def test_products_count_as_xla_counts_them():
    def function(a, b, c):
        return jnp.einsum("bij,bjk->bik", a, b) @ c

    shapes = shape(3, 4, 5), shape(3, 5, 6), shape(6, 7)
    assert counted(function, *shapes) == 2 * 3 * 4 * 5 * 6 + 2 * 3 * 4 * 6 * 7
    compiled = jax.jit(function).lower(*shapes).compile()
    assert counted(function, *shapes) == compiled.cost_analysis()["flops"]


def test_a_convolution_is_a_product_of_its_patches():
    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )

    # 4 channels in two groups: each of 6 outputs sums over 3 x 3 x 2.
    found = counted(conv, shape(2, 8, 7, 4), shape(3, 3, 2, 6))
    assert found == 2 * (3 * 3 * 2) * (2 * 6 * 5 * 6)


def test_loops_count_as_often_as_they_run_and_the_dead_not_at_all():
    def ten(x):
        def body(y, _):
            unused = y @ y @ y
            del unused
            return y @ y, y @ x

        return jax.lax.scan(body, x, None, length=10)[0]

    one = 2 * 3**3
    # The product with x is stacked by the scan, though nobody reads it.
    assert counted(ten, shape(3, 3)) == 10 * 2 * one
    assert counted(lambda x: (ten(x), x)[1], shape(3, 3)) == 0

    def branches(x):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x)

    assert counted(branches, shape(3, 3)) == 2 * one

    def solver(x):
        return jax.lax.while_loop(lambda y: y[0, 0] > 0, lambda y: y @ y, x)

    assert counted(jax.jit(solver), shape(3, 3)) == one


@pytest.mark.parametrize("remat", [False, True])
def test_the_backward_pass_is_counted(remat):
    def loss(w, x):
        return jnp.sum(jnp.tanh(x @ w) @ w)

    function = jax.checkpoint(loss) if remat else loss
    one = 2 * 5 * 4 * 4
    # Two products forward and three back, since x wants no gradient; tanh once more.
    found = counted(jax.value_and_grad(function), shape(4, 4), shape(5, 4))
    assert found == (6 if remat else 5) * one
