package interop

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/gelery/gelery/monitor"
)

// readPatterns has Python match each pattern, as its workers do.
const readPatterns = `import json, sys
from kombu.matcher import match
for pattern, matcher in json.load(sys.stdin):
    try:
        match('celery@web1.example', pattern, matcher)
    except BaseException as e:
        print(matcher, ascii(pattern), ascii(e))`

// TestPythonReadsPatterns: whatever pattern may be sent, Python can read; and a worker that has been asked with one, or with one that
// was refused, answers afterwards.
func TestPythonReadsPatterns(t *testing.T) {
	t.Parallel()
	tokens := []string{"a", "z", "0", "é", "☃", ".", "*", "+", "?", "(", ")", "[", "]", "|", "^", "$", `\`, "d", "w", "b", "Z", "-", "!", "{", "}", ",", "#", " ",
		"(?", "[a-z", "[!", "[^", "\n", "&&", "--", `\pL{1000}`}
	random := rand.New(rand.NewPCG(1, 1))
	var sent [][2]string
	for range 200_000 {
		text := ""
		for range 1 + random.IntN(8) {
			text += tokens[random.IntN(len(tokens))]
		}
		for _, matcher := range []string{"glob", "pcre"} {
			if monitor.CheckPattern(text, matcher) == nil && len(sent) < 20_000 {
				sent = append(sent, [2]string{text, matcher})
			}
		}
	}
	document, err := json.Marshal(sent)
	if err != nil || len(sent) < 10_000 {
		t.Fatalf("%d patterns pass, %v", len(sent), err)
	}
	forOldestAndNewest(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue = pyQueue
		worker := c.StartWorker(t, s, "solo", 1, "-n", "py1@box")
		c.To(GoToPython).Cell(t, "patterns of node names", func(t *testing.T) {
			python := exec.CommandContext(within(t), c.Command(t, s, "python").Path, "-W", "ignore", "-c", readPatterns)
			python.Stdin = bytes.NewReader(document)
			if out, err := python.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("Python cannot read patterns that passed: %.2000s %v", out, err)
			}
			answers(t, c.StartDriver(t, s), "py1@box")
			control, err := monitor.NewControl(dial(t, s, 2).Transport(), monitor.ControlConfig{Timeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range [][2]string{{"[", "pcre"}, {`\pL{1000}`, "pcre"}, {"x", "sql"}, {"[z-a]", "glob"}} {
				if err := control.Matching(p[0], p[1]).Tell(within(t), "ping", nil); err == nil {
					t.Errorf("%q is sent", p)
				}
			}
			for _, p := range [][2]string{{"py[0-9]@*", "glob"}, {`py\d+@(box|x)?$`, "pcre"}, {"", ""}} {
				if a, err := control.Matching(p[0], p[1]).Limit(1).Ping(within(t)); err != nil || len(a) != 1 || a[0].Node != "py1@box" {
					t.Errorf("%q: the answers are %v, %v", p, a, err)
				}
			}
			wellBehaved(t, worker)
		})
	})
}
