package main

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestGateOne(t *testing.T) {
	slow, fine := Interval{1.2, 1.15, 1.25}, Interval{1.2, 1.05, 1.35}
	for _, c := range []struct {
		name   string
		ratios []Interval
		held   bool
		runs   int
	}{
		{"the lower end decides, not the median", []Interval{fine}, true, 1},
		{"one slow measurement is noise", []Interval{slow, fine}, true, 2},
		{"two are a mistake", []Interval{slow, slow}, false, 2},
		{"at the limit", []Interval{{1.2, 1.10, 1.3}}, true, 1},
		{"nothing to compare", []Interval{{math.NaN(), math.NaN(), math.NaN()}, {math.NaN(), math.NaN(), math.NaN()}}, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			runs := 0
			var out strings.Builder
			held, err := gateOne(workloads()[0], 1.10, func(workload) (Interval, error) {
				runs++
				return c.ratios[runs-1], nil
			}, &out)
			if held != c.held || runs != c.runs || err != nil {
				t.Errorf("held %v after %d runs, error %v, want %v after %d", held, runs, err, c.held, c.runs)
			}
			if strings.Contains(out.String(), "FAIL") == c.held || !strings.Contains(out.String(), workloads()[0].name) {
				t.Errorf("message: %s", out.String())
			}
		})
	}
}

func TestGateOnePassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	_, err := gateOne(workloads()[0], 1.10, func(workload) (Interval, error) { return Interval{}, broken }, &strings.Builder{})
	if !errors.Is(err, broken) {
		t.Errorf("error = %v", err)
	}
}

func TestGateLimits(t *testing.T) {
	o, err := parseFlags([]string{"-gate"}, &strings.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	checked := map[string]float64{}
	for _, w := range workloads() {
		if limit := o.gateLimit(w); limit > 0 {
			checked[w.name] = limit
		}
	}
	if len(checked) != 11 || checked["QueryRow/bg"] != 1.10 || checked[gateExec] != 0.9 {
		t.Errorf("checked: %v", checked)
	}

	o, err = parseFlags([]string{"-gate", "-gate-ctx-exec", "0"}, &strings.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workloads() {
		if w.kind != ctxBackground && o.gateLimit(w) > 0 {
			t.Errorf("%s is checked although it is switched off", w.name)
		}
	}
}
