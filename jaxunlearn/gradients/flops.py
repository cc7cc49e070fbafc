"""Floating-point operations of a traced function's matrix products.

XLA's own count sees the body of a loop once, so it tells little of a network scanned
over its layers.
"""

import math
from typing import Any

from jaxunlearn.gradients.programs import (
    check_open,
    living_equations,
    parameter,
    programs_in,
)


def matrix_flops(jaxpr: Any) -> float:
    """Return the flops of the matrix products and convolutions in a jaxpr.

    A product of [m,k] and [k,n] counts 2mkn. A scan counts as often as it runs; a loop
    whose length is not known beforehand (a solver's) counts once; of branches the
    dearest. What nothing depends on does not count.

    Args:
      jaxpr: Such as ``jax.make_jaxpr(function)(*arguments)`` or ``traced.jaxpr``.

    Raises:
      UnreadProgram: This version of JAX records it in a form unknown to us.

    >>> import jax
    >>> x = jax.ShapeDtypeStruct((3, 3), "float32")
    >>> ten = lambda x: jax.lax.scan(lambda y, _: (y @ y, None), x, None, length=10)[0]
    >>> matrix_flops(jax.make_jaxpr(ten)(x))
    540.0
    """
    total = 0.0
    for equation in living_equations(getattr(jaxpr, "jaxpr", jaxpr)):
        name = equation.primitive.name
        inner = [matrix_flops(part) for part in programs_in(equation)]
        if not inner:
            check_open(equation)
        if name == "dot_general":
            (contracted, _), _ = parameter(equation, "dimension_numbers")
            left = equation.invars[0].aval.shape
            size = math.prod(left[axis] for axis in contracted)
            total += 2.0 * size * math.prod(equation.outvars[0].aval.shape)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            places = parameter(equation, "dimension_numbers").rhs_spec
            # Every output sums over the window and the input channels of its group.
            size = math.prod(kernel) // kernel[places[0]]
            total += 2.0 * size * math.prod(equation.outvars[0].aval.shape)
        elif name == "scan":
            total += parameter(equation, "length") * sum(inner)
        elif name == "cond":
            total += max(inner)
        else:
            total += sum(inner)
    return total
