package debughttp

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// luminance is that of WCAG 2 for "#rrggbb" or "#rgb".
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	c := strings.TrimPrefix(colour, "#")
	if len(c) == 3 {
		c = string([]byte{c[0], c[0], c[1], c[1], c[2], c[2]})
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(c[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(colour, err)
		}
		v := float64(n) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}

// Each text can be read in both schemes: WCAG 2 wants a contrast of 4.5.
func TestContrast(t *testing.T) {
	light, dark, _ := strings.Cut(pageCSS, "prefers-color-scheme: dark")
	for scheme, css := range map[string]string{"light": light, "dark": dark} {
		colours := make(map[string]string)
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]+);`).FindAllStringSubmatch(css, -1) {
			colours[m[1]] = m[2]
		}
		for _, pair := range []string{
			"text bg", "text card", "text code", "text bad-bg", "text good-bg", "text warn-bg", "muted bg", "muted card", "muted code",
			"accent bg", "accent card", "bad card", "bad bad-bg", "bad code", "good good-bg", "warn warn-bg", "warn card",
		} {
			front, back, _ := strings.Cut(pair, " ")
			a, b := luminance(t, colours[front]), luminance(t, colours[back])
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
				t.Errorf("%s: %s has a contrast of %.2f", scheme, pair, ratio)
			}
		}
	}
}
