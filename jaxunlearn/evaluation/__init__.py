"""What a model still knows, what it lost, and how it stands beside retrained ones.

``text`` is what a language model says, ``membership`` whether one can tell who was in
the data, ``internals`` what is left inside, ``retrained`` how it stands beside models
trained without the forgotten, ``attacks`` what brings the forgotten back, and ``suite``
all of it at once. Names are imported when first used; ``__init__.pyi`` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
