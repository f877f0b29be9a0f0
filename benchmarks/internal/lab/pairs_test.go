package lab

import (
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		numbers []float64
		want    float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 3}, 3}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := Median(tt.numbers); got != tt.want {
			t.Errorf("median of %v is %v; expected %v", tt.numbers, got, tt.want)
		}
	}
}

// The ratio of the medians would be 1 here.
func TestMedianIsOfTheRatios(t *testing.T) {
	t.Parallel()
	p := Pairs{A: []Run{{Rate: 1}, {Rate: 2}, {Rate: 9}}, B: []Run{{Rate: 2}, {Rate: 1}, {Rate: 3}}}
	if got := p.Median(); got != 2 {
		t.Errorf("got %v; expected 2", got)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, tt := range []struct {
		values []time.Duration
		p      int
		want   time.Duration
	}{{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred[:1], 99, 1}, {hundred[:3], 50, 2}} {
		if got := Percentile(tt.values, tt.p); got != tt.want {
			t.Errorf("percentile %d of %d values is %v; expected %v", tt.p, len(tt.values), got, tt.want)
		}
	}
}
