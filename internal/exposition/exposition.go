// Package exposition writes metrics in Prometheus's text format, version 0.0.4.
package exposition

import (
	"math"
	"strconv"
	"strings"
)

// ContentType is that of the text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Label is a label of a sample.
type Label struct{ Name, Value string }

// Text is the text under way. The zero value is ready.
type Text struct {
	b      []byte
	family string
}

// Bytes is the text.
func (t *Text) Bytes() []byte { return t.b }

// Family begins a family of metrics: its samples follow. Kind is "counter", "gauge" or "histogram".
func (t *Text) Family(name, kind, help string) {
	t.family = name
	t.b = append(t.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// Sample writes a sample of the family.
func (t *Text) Sample(value float64, labels ...Label) { t.sample("", value, labels) }

// Histogram writes a histogram: how many values there are at or below each bound, in all, and their sum. Counts has one
// more than bounds, of what is above the last, and is not cumulated.
func (t *Text) Histogram(bounds []float64, counts []uint64, sum float64, labels ...Label) {
	n := uint64(0)
	with := append(append(make([]Label, 0, len(labels)+1), labels...), Label{Name: "le"})
	for i, c := range counts {
		n += c
		bound := math.Inf(1)
		if i < len(bounds) {
			bound = bounds[i]
		}
		with[len(labels)].Value = number(bound)
		t.sample("_bucket", float64(n), with)
	}
	t.sample("_sum", sum, labels)
	t.sample("_count", float64(n), labels)
}

func (t *Text) sample(suffix string, value float64, labels []Label) {
	t.b = append(t.b, t.family...)
	t.b = append(t.b, suffix...)
	for i, l := range labels {
		t.b = append(t.b, "{,"[min(i, 1)])
		t.b = append(t.b, l.Name...)
		t.b = append(t.b, `="`...)
		t.b = append(t.b, escaper.Replace(strings.ToValidUTF8(l.Value, "\uFFFD"))...)
		t.b = append(t.b, '"')
	}
	if len(labels) > 0 {
		t.b = append(t.b, '}')
	}
	t.b = append(t.b, ' ')
	t.b = append(t.b, number(value)...)
	t.b = append(t.b, '\n')
}

var escaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// number is a value as Prometheus's Python client writes it: 1.0, 0.005, +Inf.
func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	s := strconv.FormatFloat(v, 'g', -1, 64)
	if !strings.ContainsAny(s, ".eN") {
		s += ".0"
	}
	return s
}
