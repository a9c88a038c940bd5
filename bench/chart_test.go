package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestChart(t *testing.T) {
	golden(t, "overhead.svg", chart(sample()))
}

// wellFormed reads the whole document and returns its text.
func wellFormed(t *testing.T, document string) string {
	t.Helper()
	var text strings.Builder
	for d := xml.NewDecoder(strings.NewReader(document)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if data, ok := token.(xml.CharData); ok {
			text.Write(data)
		}
	}
}

func TestChartIsWellFormed(t *testing.T) {
	partial := sample()
	partial.Workloads = partial.Workloads[:1]
	withoutGuard := sample()
	withoutGuard.Run.Candidates = withoutGuard.Run.Candidates[:2]
	for i := range withoutGuard.Workloads {
		withoutGuard.Workloads[i].Cells = withoutGuard.Workloads[i].Cells[:2]
	}
	for name, r := range map[string]*Results{
		"whole": sample(), "partial": partial, "without guard": withoutGuard, "empty": {},
	} {
		t.Run(name, func(t *testing.T) {
			svg := chart(r)
			wellFormed(t, svg)
			for _, bad := range []string{"NaN", "Inf", "<image", "<script", "@import", "url("} {
				if strings.Contains(svg, bad) {
					t.Errorf("the chart contains %q", bad)
				}
			}
			// The namespace is a name, nothing is loaded from it.
			if strings.Count(svg, "http") != strings.Count(svg, `xmlns="http://www.w3.org/2000/svg"`) {
				t.Error("the chart refers to something outside")
			}
		})
	}
}

func TestChartEscapes(t *testing.T) {
	if text := wellFormed(t, chart(sample())); !strings.Contains(text, "Example <CPU> & more") {
		t.Error("the processor's name is not in the text")
	}
}

func TestChartFollowsLightAndDark(t *testing.T) {
	if !strings.Contains(chart(sample()), "prefers-color-scheme: dark") {
		t.Error("no colours for a dark page")
	}
}

func TestChartedIsSortedAndWithoutRaw(t *testing.T) {
	got := strings.Join(charted(sample()), " ")
	if got != "leakguard sqlhooks raw2 sqlmw" {
		t.Errorf("charted = %s", got)
	}
}
