package monitor

import (
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
)

func TestCheckPattern(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		matcher   string
		good, bad []string
	}{
		{"glob", []string{"", "web*", "celery@web-??.example", "[a-z0-9_]*@box", "[!a]x", "é☃\\", "x]", "a**b"},
			[]string{"[", "[]", "[]a]", "[!]", "[z-a]", "[a-]", "[-a]", "[a--]", `[\]`, "[[a]", "[é-ü]", strings.Repeat("*a", 6), strings.Repeat("x", 256), "\xff"}},
		{"pcre", []string{"", "^web", `web\d+@.*\.example$`, "(a|b)?c", "(|a)", "[^a-z_]+", `\@\-\_\\`, "web1|web2", "a?b*c+", "é☃", "#x y-/", `\W\S`},
			[]string{"[", "(", ")", "*", "a**", "a*?", "a+?", "^*", "(a)*", "(a|a)+", "(?i)a", "(?P<n>a)", "(?:a)", `\pL{1000}`, "a{2}", "a]", `\b`, `\Z`, `\z`, `\1`, `\é`,
				`\`, "[z-a]", `[\d]`, "[[:alpha:]]", strings.Repeat("a*", 6), strings.Repeat("()", 6), strings.Repeat("x", 256), "\xff", "\\\n"}},
		{"sql", nil, []string{"", "x"}}, {"", nil, []string{"", "x"}},
	} {
		for _, p := range tt.good {
			if err := CheckPattern(p, tt.matcher); err != nil {
				t.Errorf("%s %q: %v", tt.matcher, p, err)
			}
		}
		for _, p := range tt.bad {
			if err := CheckPattern(p, tt.matcher); err == nil {
				t.Errorf("%s %q passes", tt.matcher, p)
			}
		}
	}
}

// TestBadPatternIsNotSent: nobody hears a command with a pattern that could harm, whichever way it is given.
func TestBadPatternIsNotSent(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	heard := make(chan string, 10)
	node(t, tr, "a@h", func(r *protocol.PidboxRequest) any {
		heard <- r.Method + " " + r.Pattern
		return map[string]any{"ok": "pong"}
	})
	for _, bad := range [][2]string{{"[", "pcre"}, {"x", "sql"}, {"x", ""}, {"[z-a]", "glob"}} {
		c := control(t, tr).Matching(bad[0], bad[1])
		errs := []error{c.Tell(deadline(t), "shutdown", nil)}
		for _, within := range []time.Duration{0, limit} {
			_, err := c.Within(within).Ping(deadline(t))
			errs = append(errs, err)
		}
		for _, err := range errs {
			if err == nil || !strings.Contains(err.Error(), "glob") && !strings.Contains(err.Error(), "pcre") {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
	if answers, err := control(t, tr).Limit(1).Matching("", "").Ping(deadline(t)); err != nil || len(answers) != 1 {
		t.Errorf("without a pattern the answers are %v, %v", answers, err)
	}
	if first := <-heard; first != "ping " {
		t.Errorf("%q was sent", first)
	}
}
