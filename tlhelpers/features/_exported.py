"""The graph of a backbone, for those who compute elsewhere what `extract` computes here."""

from tlhelpers.backbones import Backbone
from tlhelpers.features import _key, _onnx
from tlhelpers.features._engines import ENGINES


def graph(backbone: Backbone) -> tuple[str, bytes, int]:
    """Exports a backbone to ONNX, once: the graph is kept in the cache folder.

    ONNX Runtime, on one thread, computes with it what `extract` does with the engine ``"onnx"``, to the last
    bit. That needs no Keras.

    Args:
        backbone: From `tlhelpers.backbones.load`.

    Returns:
        The name of the graph, which is another one for any other network, version of Keras or of ONNX
        Runtime, or kind of processor. The graph, from float32 images ``(n, s, s, 3)``, 0..255, to features
        ``(n, d)``. And how many images `extract` hands to it at once.

    Raises:
        ImportError: If ONNX Runtime or the exporter is not installed.
        RuntimeError: If the backbone cannot be exported.

    Example:
        >>> from tlhelpers import backbones, features
        >>> name, content, step = features.graph(backbones.load(image_size=32))
        >>> name.rpartition("-")[0], step
        ('efficientnet_lite0-32', 108)
    """
    _onnx.check()
    network = _key.network(backbone, backbone.model, [-1], pooled=True, on_disk=True)
    step = max(1, min(256, ENGINES["onnx"].pixels // backbone.image_size**2))
    return _onnx.name(network), _onnx.graph(network), step
