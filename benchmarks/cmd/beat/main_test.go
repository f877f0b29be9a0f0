package main

import (
	"testing"
	"time"
)

// TestMeasure runs all of it once, small, without a bound.
func TestMeasure(t *testing.T) {
	if _, err := measure(t.Context(), config{entries: 200, rate: 50, span: 2 * time.Second, store: "local"}); err != nil {
		t.Fatal(err)
	}
}
