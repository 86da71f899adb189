from pathlib import Path
import re
def sub(f, a, b, n=1):
    p=Path(f); s=p.read_text(); assert a in s, (f,a); p.write_text(s.replace(a,b,n))
sub("_toc.yml","      - file: notebooks/16_sentences\n","      - file: notebooks/15_few_parameters\n      - file: notebooks/16_sentences\n")
sub("book/_ext/diagrams.py",'''    "notebooks/16_sentences": (''','''    "notebooks/15_few_parameters": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/16_sentences": (''')
sub("book/_ext/diagrams.py",'''"07_learning_rates 08_comparison 09_vgg16 16_sentences 22_seeing 23_robustness",
            "-|Neighbours|Map of kinds|-|-|Layers|Freezing|Learning rates|Comparison|VGG16|Sentences|Seeing|"
            "Robustness",''','''"07_learning_rates 08_comparison 09_vgg16 15_few_parameters 16_sentences 22_seeing 23_robustness",
            "-|Neighbours|Map of kinds|-|-|Layers|Freezing|Learning rates|Comparison|VGG16|Few parameters|"
            "Sentences|Seeing|Robustness",''')
sub("book/_ext/diagrams.py",'return 904, [*parts, *boxes, text(0, 898,','return 970, [*parts, *boxes, text(0, 964,')
s=Path("book/index.md").read_text()
new="| 17 | {ref}`few-parameters`: LoRA, adapters and other small parts beside full fine-tuning; augmentations that ship with Keras | {runtime}`15_few_parameters` to run, 35 min to read |\n"
for k in (21,20,19,18,17): s=s.replace(f"\n| {k} | ",f"\n| {k+1} | ")
s=s.replace("\n| 18 | {ref}`sentences`","\n"+new+"| 18 | {ref}`sentences`"); Path("book/index.md").write_text(s)
sub("book/instructors.md","{ref}`Own images <own-images>`" if 0 else "{ref}`Your own images <own-images>`, {ref}`Sentences <sentences>`","{ref}`Your own images <own-images>`, {ref}`Few parameters <few-parameters>`, {ref}`Sentences <sentences>`")
sub("book/learning_path.md","to your own images, to tuning, to sentences,","to your own images, to tuning, to fine-tuning few parameters, to sentences,")
sub("book/learning_path.md","{ref}`Tuning <tuning>`, {ref}`Sentences <sentences>`, {ref}`Seeing","{ref}`Tuning <tuning>`, {ref}`Few parameters <few-parameters>`, {ref}`Sentences <sentences>`, {ref}`Seeing")
sub("book/learning_path.md","| a fourth | {ref}`Sentences <sentences>` | do with texts and a transformer what you did with pictures |","| a fourth | {ref}`Few parameters <few-parameters>`, {ref}`Sentences <sentences>` | train a small part for each task, and do with texts and a transformer what you did with pictures |")
sub("book/glossary.md","TF-IDF\n","""adapter
  **适配器.** A small bottleneck of two layers, put between the layers of a frozen network and added to what passes. Its second layer begins as zeros, so that at first it changes nothing.

mixup
  **混合增强 (Mixup).** A training image is a weighted mean of two, and so is its label. CutMix pastes a rectangle of one image into another and shares the label by area.

test-time augmentation
  **测试时增强.** The answer for an image is the mean of the answers for several changed copies of it, such as the image and its mirror image.

model soup
  **模型汤.** The mean, weight by weight, of several networks that were fine-tuned from the same start.

TF-IDF
""")
sub("book/search.toml",'"notebooks/16_sentences" = [','''"notebooks/15_few_parameters" = [
  "parameter-efficient", "peft", "adapter", "adapters", "bitfit", "low rank", "mixup", "cutmix", "randaugment", "augmentation",
  "test time augmentation", "tta", "model soup", "weight averaging", "many tasks one backbone",
]
"notebooks/16_sentences" = [''')
sub("tests/test_site.py",'    "lora": "notebooks/16_sentences",','    "lora": "notebooks/16_sentences",\n    "parameter-efficient": "notebooks/15_few_parameters",\n    "cutmix": "notebooks/15_few_parameters",')
sub("book/trends.md","""**Try.** Freeze everything but gamma and beta of the BatchNormalization layers. Mind {ref}`listings-batchnorm`: a trainable
BatchNormalization layer also moves its running statistics under `fit`. Keras has LoRA as `layer.enable_lora(rank)`: for `Dense` and
`EinsumDense`, for `Embedding`, and for convolutions such as `Conv2D`, though not for depthwise ones. {ref}`sentences` measures it on a
transformer.""","""**Try.** {ref}`few-parameters` does it: LoRA, adapters, gamma and beta of BatchNormalization, and the last block, beside full fine-tuning. Mind
{ref}`listings-batchnorm`: a trainable BatchNormalization layer also moves its running statistics under `fit`. Keras has LoRA as
`layer.enable_lora(rank)`: for `Dense` and `EinsumDense`, for `Embedding`, and for convolutions such as `Conv2D`, though not for depthwise
ones. {ref}`sentences` measures it on a transformer.""")
sub("CHANGELOG.md","- Chapter 16: a transformer","""- Chapter 15: LoRA, adapters, BatchNorm's scales and shifts and the last block beside full fine-tuning; mixup, CutMix, RandAugment, mirrored test
  images and the mean of several runs' weights, each beside a plain arm.
- Chapter 16: a transformer""")
sub("coursework/items.toml",'"tl-16-2", "tl-16-4"]','"tl-15-1", "tl-15-2", "tl-15-4", "tl-16-2", "tl-16-4"]')
sub("coursework/items.toml",'"tl-23-1", "tl-23-2", "tl-23-4"','"tl-15-3", "tl-23-1", "tl-23-2", "tl-23-4"')
sub("book/references.bib","% ------------------------------------------------------- interpretability",'''@inproceedings{benzaken2022bitfit,
  author    = {Ben Zaken, Elad and Goldberg, Yoav and Ravfogel, Shauli},
  title     = {{BitFit}: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models},
  booktitle = {Proceedings of the 60th Annual Meeting of the Association for Computational Linguistics (Volume 2: Short Papers)},
  pages     = {1--9}, year = {2022},
  eprint    = {2106.10199}, archiveprefix = {arXiv}
}
@inproceedings{yun2019cutmix,
  author    = {Yun, Sangdoo and Han, Dongyoon and Oh, Seong Joon and Chun, Sanghyuk and Choe, Junsuk and Yoo, Youngjoon},
  title     = {{CutMix}: Regularization Strategy to Train Strong Classifiers with Localizable Features},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  pages     = {6023--6032}, year = {2019},
  eprint    = {1905.04899}, archiveprefix = {arXiv}
}
@inproceedings{wortsman2022soups,
  author    = {Wortsman, Mitchell and Ilharco, Gabriel and Gadre, Samir Yitzhak and Roelofs, Rebecca and Gontijo-Lopes, Raphael and Morcos, Ari S. and Namkoong, Hongseok and Farhadi, Ali and Carmon, Yair and Kornblith, Simon and Schmidt, Ludwig},
  title     = {Model Soups: Averaging Weights of Multiple Fine-Tuned Models Improves Accuracy without Increasing Inference Time},
  booktitle = {Proceedings of the 39th International Conference on Machine Learning},
  series    = {Proceedings of Machine Learning Research}, volume = {162},
  pages     = {23965--23998}, year = {2022}, publisher = {PMLR},
  eprint    = {2203.05482}, archiveprefix = {arXiv}
}

% ------------------------------------------------------- interpretability''')
sub("notebooks/14_your_own_images.ipynb","*Next:* {ref}`sentences` does the same with texts, and a transformer.","*Next:* {ref}`few-parameters`, for many tasks that share one network.")
