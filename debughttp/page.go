package debughttp

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"path"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// The style sheet and the script, which only keeps unfolded what was, are part of the
// page, so that nothing else has to be loaded; the policy names them by their hashes and
// forbids everything else.
var policy = policyOf("script-src '" + hashOf(pageJS) + "'; ")

// policyOf allows what scripts says, and the style sheet.
func policyOf(scripts string) string {
	return "default-src 'none'; " + scripts + "style-src '" + hashOf(pageCSS) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"css":   func() template.CSS { return template.CSS(pageCSS) },
	"js":    func() template.JS { return template.JS(pageJS) },
	"base":  func(function string) string { return shorten(path.Base(function), 120) },
	"query": func(text string) string { return shorten(text, 250) },
	"brief": func(text string) string { return shorten(text, 120) },
}).Parse(pageHTML))

func (p *page) write(b *bytes.Buffer) error { return pageTemplate.Execute(b, p) }
