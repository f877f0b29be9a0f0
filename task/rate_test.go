package task

import (
	"testing"
	"time"
)

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"10/s": 100 * time.Millisecond, "10/m": 6 * time.Second, "10/h": 6 * time.Minute, "0.5/s": 2 * time.Second, "4": 250 * time.Millisecond,
		"0.1": 10 * time.Second, "2/": 500 * time.Millisecond, " 5 /m": 12 * time.Second, "1e3": time.Millisecond,
		"": 0, "0": 0, "0/m": 0, "1e-300": longest, "1e300": 0,
	} {
		rate, err := ParseRate(text)
		if err != nil || rate.Interval() != want {
			t.Errorf("%q: every %v, %v; expected %v", text, rate.Interval(), err, want)
		}
	}
	for _, text := range []string{"10/d", "10/min", "/m", "x", "-1", "-1/m", "nan", "inf/s", "0x10", "None", "10/m/s", "1 000"} {
		if rate, err := ParseRate(text); err == nil {
			t.Errorf("%q is taken for %v", text, rate)
		}
	}
}

func TestLimitOptions(t *testing.T) {
	t.Parallel()
	d := Define[NoArgs, NoResult]("t", RateLimit("10/m"), Concurrency(3)).Defaults()
	if *d.RateLimit != "10/m" || d.Concurrency != 3 {
		t.Errorf("%+v", d)
	}
	if d := Define[NoArgs, NoResult]("t", RateLimit(0.5)).Defaults(); *d.RateLimit != "0.5" {
		t.Errorf("%+v", *d.RateLimit)
	}
	if d := Define[NoArgs, NoResult]("t", RateLimit(0)).Defaults(); *d.RateLimit != "0" {
		t.Errorf("%+v", *d.RateLimit)
	}
	for _, o := range []DefineOption{RateLimit("10/d"), RateLimit(-1), Concurrency(0), Concurrency(-2)} {
		if _, err := TryDefine[NoArgs, NoResult]("t", o); err == nil {
			t.Errorf("%v is taken", o)
		}
	}
}
