from jupyterquiz import display_quiz

quiz = []
text = """LoRA of rank 4 on a layer from 100 to 300 channels learns
- 30,000 numbers | That is the kernel itself.
+ 1,600 numbers | Yes: 4 times 100 + 300.
- 400 numbers | The rank counts, too.
Why does B begin as zeros?
+ So that the network begins as it was | Yes: A B is zero.
- To save memory | Zeros take as much.
- So that B does not learn | It does: A, at random, passes it a gradient.
A network with LoRA is saved with model.save. The file is
- as small as the update | It holds the whole network.
+ as large as without LoRA: the updates are in the kernels | Yes.
- larger than without LoRA | Keras adds each update to its kernel.
LoRA trains a small share of the numbers. Does it take that share of the time?
- Yes: fewer numbers, less time | Most of a step is not the update.
+ No: the layers run as before, forward and back | Yes: see the seconds.
- No: it takes many times as long | It does not, either.
A soup of three runs is better than one run. What else must you compare?
- Nothing: it runs as fast as one | It was trained three times.
+ One run with three times as many steps | Yes: at equal cost.
- A soup of ten | That costs more still."""
for line in text.splitlines():
    if line.startswith(("+ ", "- ")):
        answer, said = line[2:].split(" | ")
        entry = {"answer": answer, "correct": line[0] == "+"}
        quiz[-1]["answers"].append(entry | {"feedback": said})
    else:
        entry = {"question": line, "type": "multiple_choice", "answers": []}
        quiz.append(entry)
display_quiz(quiz)
