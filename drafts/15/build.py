import json,re
REPO="./"
colab=next(c for c in json.load(open(REPO+"notebooks/23_robustness.ipynb"))["cells"] if "colab" in c["metadata"].get("tags",[]))
code={}
for f in ("core.py","cheap.py"):
    for part in open("drafts/15/"+f).read().split("#--- ")[1:]:
        name,body=part.split("\n",1); code[name.strip()]=body.strip("\n")
cells=[]
def md(i,t): cells.append(dict(cell_type="markdown",id="few-"+i,metadata={},source=t.strip("\n").splitlines(True)))
def py(i,src=None,tags=(),alt=None):
    m={}
    if alt: m["mystnb"]={"image":{"alt":alt}}
    if tags: m["tags"]=list(tags)
    cells.append(dict(cell_type="code",execution_count=None,id="few-"+i,metadata=m,outputs=[],source=(src or code[i]).strip("\n").splitlines(True)))
HI=("hide-input",); HH=("hide-input","hide-output")
exec(open("drafts/15/text.py").read())
nb=dict(cells=cells,metadata={"kernelspec":{"display_name":"Python 3","language":"python","name":"python3"},"language_info":{"name":"python"}},nbformat=4,nbformat_minor=5)
for c in cells:
    c["source"]=[l for l in c["source"]]
with open(REPO+"notebooks/15_few_parameters.ipynb","w") as f:
    json.dump(nb,f,indent=1,ensure_ascii=False,sort_keys=True); f.write("\n")
