package main

import (
	"testing"

	"github.com/gelery/gelery/internal/testservice"
)

// TestMeasure runs all of it once, small, without a bound.
func TestMeasure(t *testing.T) {
	url := testservice.Redis(t)
	if err := measure(t.Context(), url, 50, 20, 3, 2_000, 0); err != nil {
		t.Fatal(err)
	}
}
