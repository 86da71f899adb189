md("title", r"""
(few-parameters)=
# Fine-tuning few parameters

A fine-tuned network is a new network: ten tasks take ten times the disk, though most of their weights have hardly moved. On this page you train a small part and keep only that for each task: low-rank updates, adapters, scales and shifts, or the last
block. Each is measured beside full fine-tuning, from the same head, on the same images, at a rate of its own. The second half takes what Keras ships for few images, mixup and its relatives, and asks what each is worth when training is short.

**Time and memory:** {runtime}`15_few_parameters`. **You need:** {ref}`model-based`, {ref}`feature-based`.

## You will learn

- {outcome}`tl-15-1` to add LoRA and adapters to a convolutional network, to count what they train, and to check that they begin by changing nothing;
- {outcome}`tl-15-2` to keep only what a task has changed, and to put it back;
- {outcome}`tl-15-3` to compare such methods fairly, each at a rate of its own;
- {outcome}`tl-15-4` to use mixed and augmented images, mirrored test images and averaged weights, each beside the control that it needs.
""")
cells.append(dict(cell_type="code",execution_count=None,id="few-colab",metadata=colab["metadata"],outputs=[],source=colab["source"]))
py("parameters",'''# "smoke", "laptop" or "gpu"; None takes TL_PROFILE, else "laptop"
PROFILE = None
MEASURE = False  # True measures every seed that is not stored yet
''',("parameters",))
py("imports"); py("profile",tags=HI)
md("lora_text", r"""
## LoRA on convolutions

LoRA leaves a kernel $W$ as it is and learns an update of low rank beside it {cite}`hu2022lora`:

$$W' = W + \frac{\alpha}{r} A B, \qquad A \in \mathbb{R}^{n_\text{in} \times r}, \quad B \in \mathbb{R}^{r \times n_\text{out}}.$$

$A$ begins at random and $B$ at zero, so that at first nothing changes. It was made for the large matrices of language models ({ref}`sentences` uses it there). Where are such matrices in a network for pictures? In ours nearly all parameters are in *pointwise* convolutions, whose kernels cover one pixel: each is a matrix from channels to channels. In Keras it is `layer.enable_lora(rank)`, with $\alpha = r$.

A layer from 192 to 1,152 channels has 221,184 weights. How many numbers does rank 4 train in their place? Count before you run.
""")
py("enable"); py("count")
md("count_read", r"""
The count is $r\,(n_\text{in} + n_\text{out})$, summed over the layers; for the layer in question that is 5,376. The first check asks for exactly that. The second asks that the features are those of the untouched network, to the last bit.

`trainable = True` came **before** `enable_lora`, and that order matters: set afterwards, it opens the kernels that LoRA has frozen.

## One start for all

All methods of this page begin at the same place, the pretrained network with the probe's head ({ref}`freezing`). To keep it quick, images are small, and the lower blocks never learn, in no method. So the trunk runs once for each image, and everything below compares what happens **above** it. The statistics of BatchNorm stay as they are, too, in every method: the body is called with `training=False`.
""")
py("data")
md("adapters_text", r"""
## Adapters: something new in between

Older than LoRA is to leave all layers alone and put small new ones between them {cite}`houlsby2019adapters`. An **adapter** squeezes the channels through a bottleneck, widens them again, and adds the result to what came in. Its second layer begins as zeros: again nothing changes at first.

A model that exists can be rebuilt with something between its layers. `clone_model` goes through the graph; `clone_function` says which layer to take, here the old one with its weights, and `call_function` how to call it.
""")
py("adapters")
md("arms_text", r"""
## Five parts that may learn

- **norm**: scale and shift of each BatchNorm, a few numbers a channel {cite}`mudrakarta2019kprice`. Our convolutions have no biases of their own, so this is also the nearest thing to BitFit, which trains biases alone {cite}`benzaken2022bitfit`.
- **lora**: rank 4 on each pointwise convolution.
- **adapters**: as above, eight channels wide.
- **last_block**: the last block, with the layers up to the pool.
- **full**: everything above the trunk, that is 92 % of the network's weights.

The head learns in each of them.
""" if False else r"""
## Five parts that may learn

- **norm**: scale and shift of each BatchNorm, two numbers a channel {cite}`mudrakarta2019kprice`. Our convolutions have no biases of their own, so this is also the nearest thing to BitFit, which trains biases alone {cite}`benzaken2022bitfit`.
- **lora**: rank 4 on each pointwise convolution.
- **adapters**: as above, eight channels wide.
- **last_block**: the last block, with the layers up to the pool.
- **full**: everything above the trunk.

The head learns in each of them.
""")
py("arms")
md("train_text", r"""
The recipe is the usual one: Adam, a rate that rises and falls ({ref}`learning-rates`), a fixed number of passes. Two details save minutes, since building a graph takes longer here than an epoch. An optimizer that is built before `fit` has it traced once and not twice. And a rate that a callback sets can be changed without `compile`, so one graph serves several runs; each begins from the same weights, with an empty optimizer.
""")
py("compiled"); py("train")
py("first",'''
PEAK = {"norm": 1e-2, "lora": 3e-3, "adapters": 3e-3}
PEAK |= {"last_block": 1e-3, "full": 1e-3}  # chosen below


def one_hot(y):
    return np.eye(N_CLASSES, dtype="float32")[y]


def right(z, y):
    return float((z.argmax(axis=1) == y).mean())


a_test = trunk.predict(ds.x_test, verbose=0)
head = solved_head(f_train, ds.y_train)
keras.utils.set_random_seed(0)
net = opened("lora")
start = compiled(net, head, a_train)
fed = [(a_train, one_hot(ds.y_train))] * EPOCHS
for words in ("probe", "LoRA"):
    if words == "LoRA":
        train(net, start, fed, PEAK["lora"], seed=0)
    else:
        net.set_weights(start)
    z_lora = net.predict(a_test, verbose=0)
    print(f"{words:5} {right(z_lora, ds.y_test):.1%} right")
'''.replace('''PEAK = {"norm": 1e-2, "lora": 3e-3, "adapters": 3e-3}
PEAK |= {"last_block": 1e-3, "full": 1e-3}  # chosen below
''',PEAKSRC if (PEAKSRC:=open("drafts/15/peaks.txt").read()) else ""))
md("rank_text", r"""
What has LoRA done to a kernel? Its change must be the product of the two thin matrices, so its rank is at most 4. And BatchNorm's statistics must not have moved.
""")
py("rank",'''
fresh, tuned = backbones.load(P.backbone, image_size=SIZE).model, net.layers[1]
ranks = []
for layer in filter(is_pointwise, tuned.layers):
    old = fresh.get_layer(layer.name).kernel
    change = keras.ops.convert_to_numpy(layer.kernel - old)[0, 0]
    size = np.linalg.svd(change, compute_uv=False)
    ranks.append(int((size > 1e-4 * size[0]).sum()))
print("rank of each change:", *ranks)
assert 0 < max(ranks) <= 4
for layer in tuned.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        for k in (2, 3):  # mean and variance
            old = fresh.get_layer(layer.name).get_weights()[k]
            assert (layer.get_weights()[k] == old).all()
''')
md("disk_text", r"""
## What a task takes on disk

`model.save` and `save_weights` write each kernel with its update inside: a network like any other, as fast as before and as large as before. What is *new* for this task is what was trained, and nothing else. Keep that, and put it into a network that has not seen the task.
""")
py("disk",'''
def kept(net):
    return [keras.ops.convert_to_numpy(w) for w in net.trainable_weights]


def size_of(net):
    # Megabytes of a file with what was trained, and nothing else.
    file = io.BytesIO()
    np.savez(file, *kept(net))
    return file.tell() / 1e6


def put_back(net, parts):
    for w, part in zip(net.trainable_weights, parts, strict=True):
        w.assign(part)


other = opened("lora")
put_back(other, kept(net))
z = other.predict(a_test, verbose=0)
np.testing.assert_allclose(z, z_lora, atol=1e-4)
print(f"this task: {size_of(net):.2f} MB of {4e-6 * count(net.weights):.1f} MB")
''')
md("rates_text", r"""
## A rate of its own for each

One thing must not be equal in a fair comparison. A rate that suits three million parameters need not suit a hundred thousand, and whoever compares all at one rate has chosen the winner by choosing the rate. So each method tries the same four peaks, on a draw of images that is none of those compared below, and validation images choose. A draw of its own costs the comparison nothing; it also means that one draw decides, and that a close second may have been as good.
""")
py("peaks",'''
def measure_rates(seed):
    ds, v = load(seed), {}
    a, a_val = (trunk.predict(x, verbose=0) for x in (ds.x_train, ds.x_val))
    head = solved_head(above.predict(a, verbose=0), ds.y_train)
    fed = [(a, one_hot(ds.y_train))] * EPOCHS
    for arm in ARMS:
        keras.utils.set_random_seed(seed)
        net = opened(arm)
        start = compiled(net, head, a)
        for k, peak in enumerate(PEAKS):
            train(net, start, fed, peak, seed)
            z = net.predict(a_val, verbose=0)
            v[f"few_{arm}_peak{k}"] = right(z, ds.y_val)
    return v


CHOICE = P.seeds if SMOKE else (100,)  # no seed of the comparison
rates = claims.over_seeds(
    "15_rates", P.name, measure_rates, CHOICE, **given
)
print(rates.source)
''',HH)
py("rates_read",'''
for arm in ARMS if rates.values else ():
    tried = [rates[f"few_{arm}_peak{k}"].mean() for k in range(len(PEAKS))]
    shares = (f"{peak:g}: {s:.1%}" for peak, s in zip(PEAKS, tried, strict=True))
    print(f"{arm:10}", *shares, sep="  ")
    assert SMOKE or PEAK[arm] == PEAKS[int(np.argmax(tried))]
    of_full = PEAKS.index(PEAK["full"])
    claims.record(f"few_{arm}_at_best", np.array([max(tried)]))
    claims.record(f"few_{arm}_at_full", np.array([tried[of_full]]))
'''.replace('''    of_full = PEAKS.index(PEAK["full"])
''','''    of_full = 0 if SMOKE else PEAKS.index(PEAK["full"])
'''))
md("arms_seeds_text", r"""
## Over seeds

Now the five methods at their own peaks, over seeds: other images, another order. Two arms more answer what LoRA's rank is worth: the same with rank 16, and rank 4 with twice as many passes. Seconds are those of training alone, without building the graph.

What do you expect? Who is ahead, and by how much, full fine-tuning or LoRA? And is the time as small as the number of parameters?
""")
py("arms_measure",'''
EXTRA = {"lora_16": (16, 1), "lora_long": (4, 2)}  # rank, times the passes


def measure_arms(seed):
    ds, v = load(seed), {}
    a, a_test = (trunk.predict(x, verbose=0) for x in (ds.x_train, ds.x_test))
    head = solved_head(above.predict(a, verbose=0), ds.y_train)
    for arm in (*ARMS, "lora_16"):
        keras.utils.set_random_seed(seed)
        kind = arm.removesuffix("_16")
        net = opened(kind, rank=4 if kind == arm else 16)
        start = compiled(net, head, a)
        if arm == "full":
            z = net.predict(a_test, verbose=0)
        for name, times in ((arm, 1), ("lora_long", 2))[: 1 + (arm == "lora")]:
            fed = [(a, one_hot(ds.y_train))] * (times * EPOCHS)
            seconds = train(net, start, fed, PEAK[kind], seed)
            z = net.predict(a_test, verbose=0)
            v[f"few_{name}"] = right(z, ds.y_test)
            v[f"few_{name}_seconds"] = seconds
        v[f"few_{arm}_numbers"] = count(net.trainable_weights[:-2])
        v[f"few_{arm}_mb"] = size_of(net)
    net.set_weights(start)
    return v
''' if False else '''
def measure_arms(seed):
    ds, v = load(seed), {}
    a, a_test = (trunk.predict(x, verbose=0) for x in (ds.x_train, ds.x_test))
    head = solved_head(above.predict(a, verbose=0), ds.y_train)

    def note(name, net, start, kind, times=1):
        fed = [(a, one_hot(ds.y_train))] * (times * EPOCHS)
        seconds = train(net, start, fed, PEAK[kind], seed)
        v[f"few_{name}"] = right(net.predict(a_test, verbose=0), ds.y_test)
        v[f"few_{name}_seconds"] = seconds
        v[f"few_{name}_numbers"] = count(net.trainable_weights[:-2])
        v[f"few_{name}_mb"] = size_of(net)

    for arm in (*ARMS, "lora_16"):
        keras.utils.set_random_seed(seed)
        kind = arm.removesuffix("_16")
        net = opened(kind, rank=4 if kind == arm else 16)
        start = compiled(net, head, a)
        if arm == "lora":
            net.set_weights(start)
            z = net.predict(a_test, verbose=0)
            v["few_head"] = right(z, ds.y_test)
        note(arm, net, start, kind)
        if arm == "lora":
            note("lora_long", net, start, kind, times=2)
    v["few_share"] = v["few_lora_numbers"] / v["few_full_numbers"]
    return v
''',HH)
py("arms_claims",'''
arms = claims.over_seeds("15_arms", P.name, measure_arms, SEEDS, **given)
print(arms.source)
NUMBERS = {"unit": "numbers", "between": (0, np.inf)}
MEGABYTES = {"unit": "MB", "between": (0, np.inf)}
ROWS = (*ARMS, "lora_16", "lora_long")
for arm in ROWS if arms.values else ():
    claims.record(f"few_{arm}", arms[f"few_{arm}"])
    for name, unit in (
        ("seconds", {"unit": "s"}),
        ("numbers", NUMBERS),
        ("mb", MEGABYTES),
    ):
        claims.record(f"few_{arm}_{name}", arms[f"few_{arm}_{name}"], **unit)
if arms.values:
    claims.record("few_head", arms["few_head"])
    claims.record("few_share", arms["few_share"])
    behind = arms["few_full"] - arms["few_lora"]
    claims.record("few_lora_behind", behind, "pp")
''',HH)
py("arms_figure",'''
WORDS = {"norm": "BatchNorm", "lora": "LoRA", "adapters": "adapters"}
WORDS |= {"last_block": "last block", "full": "full"}
WORDS |= {"lora_16": "LoRA, rank 16"}
figure, ax = plt.subplots(figsize=(6.4, 3.6))
for arm, words in WORDS.items() if arms.values else ():
    v, x = 100 * arms[f"few_{arm}"], arms[f"few_{arm}_mb"].mean()
    color, marker = plots.METHODS["fine-tuning"]
    ax.plot([x] * len(v), v, ".", color=color, alpha=0.4)
    ax.plot(x, v.mean(), marker, color=color)
    above_or_below = -14 if arm in ("norm", "last_block") else 6
    place = {"textcoords": "offset points", "ha": "center"}
    ax.annotate(words, (x, v.mean()), (0, above_or_below), **place)
if arms.values:
    color, _ = plots.METHODS["linear probe"]
    mean = 100 * arms["few_head"].mean()
    ax.axhline(mean, color=color, linestyle=":", label="linear probe")
    ax.legend(loc="lower right")
ax.set(xscale="log", xlabel="megabytes to keep for a task")
ax.set(ylabel="test accuracy (%)")
ax.margins(x=0.15);
''',HI,"Test accuracy over the megabytes that a task takes on disk, on a logarithmic axis. BatchNorm, adapters and LoRA lie at the left, with a tenth of a megabyte to half a megabyte; the last block and full fine-tuning at the right, with several megabytes. Dots are seeds. A dotted line is the linear probe.")
md("arms_read", ARMS_READ if (ARMS_READ:=open("drafts/15/arms_read.md").read()) else "")
md("cheap_text", r"""
## What ships with Keras

Few images are the other half of the problem. Keras has layers that make more of them.

- **mixup**: an image becomes a weighted mean of two, and so does its label {cite}`zhang2018mixup`.
- **CutMix** pastes a rectangle of one image into another, and shares the label by area {cite}`yun2019cutmix`.
- **RandAugment** draws two of some dozen changes, such as a rotation, a shift or another contrast {cite}`cubuk2020randaugment`. The label stays.

They take images and labels together, and the labels have to be one-hot, since they become shares. All settings are those that Keras ships.
""")
py("mixing")
md("mixing_text", r"""
### A known answer

Let class 0 be black and class 1 be white. Then the label's share of class 1 has to be the mean brightness of the mixed image, for mixup and for CutMix.
""")
py("mixing_check",'''
keras.utils.set_random_seed(0)
y = np.arange(32) % 2
white = np.zeros((32, SIDE, SIDE, 3), "float32") + 255 * y[:, None, None, None]
for recipe in ("mixup", "cutmix"):
    x, soft = copies(white, y, recipe)
    bright = x.mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(bright, soft[:, 1], atol=1e-4)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-5)
    mixed = ((soft.max(axis=1) < 0.99) & (soft.max(axis=1) > 0)).mean()
    print(f"{recipe:6} shares fit the pixels; mixed: {mixed:.0%}")
''')
py("mixing_figure",'''
def tones(picture):
    # Thirty-two of each colour: the stored page stays small.
    return np.clip(np.round(picture / 255 * 31) / 31, 0, 1)


keras.utils.set_random_seed(1)
kinds = ("plain", "mixup", "cutmix", "randaugment", "together")
figure, axes = plt.subplots(5, 6, figsize=(6.4, 5.6))
for line, kind in zip(axes, kinds, strict=True):
    x, _ = copies(ds.x_train[:32], ds.y_train[:32], kind)
    line[0].set_ylabel(kind, fontsize=8)
    for ax, picture in zip(line, x, strict=False):
        ax.imshow(tones(picture), interpolation="none")
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
''',HI,"Six training images in five rows. The first row shows them as they are. With mixup some are faint double images, with CutMix some have a rectangle from another image, with RandAugment they are sheared, shifted, inverted in part or in other colours. The last row has RandAugment and CutMix at once.")
md("top_text", r"""
### The arms

One method of fine-tuning serves all: the last block and the head, at its peak from above. What is below runs once for each copy. Every arm mirrors half of the images at random, and takes the same number of steps. *Together* is RandAugment with CutMix and mixup in turns.
""")
py("top")
md("after_text", r"""
Two more remedies come after training. **Test-time augmentation** asks the network twice, about the image and its mirror image, and adds the answers. A **soup** is the mean of the weights of several runs from one start {cite}`wortsman2022soups`. It takes three trainings, so its rivals are three: a run as such, the mean of the three networks' *answers*, and one run that is three times as long.

For a linear network the soup *is* the mean of answers: a check with a known answer.
""")
py("after",'''
def logits(net, weights, a):
    net.set_weights(weights)
    return net.predict(a, verbose=0)


def soup(runs):
    # The mean of several networks' weights, tensor by tensor.
    return [np.mean(same, axis=0) for same in zip(*runs, strict=True)]


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(8, 5))
linear = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
runs = [[np.random.default_rng(k).normal(size=s) for s in ((5, 3), (3,))]
        for k in (1, 2, 3)]
mean = np.mean([logits(linear, weights, x) for weights in runs], axis=0)
np.testing.assert_allclose(
    logits(linear, soup(runs), x), mean, atol=1e-5
)
assert (turned(turned(ds.x_test)) == ds.x_test).all()
print("a linear network's soup answers as the mean of its runs")
''')
md("cheap_seeds_text", r"""
### Over seeds

Strong augmentation makes the task harder, and {ref}`model-based` has shown how little a short training learns. So three things are recorded beside the test accuracy: the accuracy on the training images as they are, which says whether an arm has learned them at all; the same arms with mirrored test images; and, for the plain arm and for *together*, a run three times as long.
""")
py("measure_cheap",code["measure_cheap"],HH)
py("cheap_claims",'''
cheap = claims.over_seeds("15_cheap", P.name, measure_cheap, SEEDS, **given)
print(cheap.source)
SHOWN = ("head", *RECIPES, "soup", "plain_long", "together_long")
for name in SHOWN if cheap.values else ():
    for part in ("", "_two", "_fit"):
        key = f"cheap_{name}{part}"
        claims.record(key, cheap[key])
for name in ("each", "answers") if cheap.values else ():
    claims.record(f"cheap_{name}", cheap[f"cheap_{name}"])
''',HH)
py("cheap_figure",'''
if cheap.values:
    names = {"linear probe": "head", "plain": "plain", "mixup": "mixup"}
    names |= {"CutMix": "cutmix", "RandAugment": "randaugment"}
    names |= {"together": "together", "soup of three": "soup"}
    names |= {"plain, 3 x steps": "plain_long"}
    names |= {"together, 3 x steps": "together_long"}
    shown = {words: cheap[f"cheap_{name}"] for words, name in names.items()}
    plots.compare(shown, "test accuracy (%)")
''',HI,"One row for each arm, from the linear probe over plain fine-tuning, mixup, CutMix, RandAugment and all together to the soup of three and the two long runs: test accuracy of each seed as a dot, with mean and interval.")
md("cheap_read", CHEAP_READ if (CHEAP_READ:=open("drafts/15/cheap_read.md").read()) else "")
md("exercises", EX if (EX:=open("drafts/15/ex.md").read()) else "")
py("quiz",open("drafts/15/quiz.py").read(),HI)
md("quiz_basis", open("drafts/15/basis.md").read())
