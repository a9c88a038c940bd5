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

// The style sheet is part of the page, so that nothing else has to be loaded;
// the policy names it by its hash and forbids everything else.
var policy = func() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"css":   func() template.CSS { return template.CSS(pageCSS) },
	"base":  path.Base, // of a function's name
	"query": func(text string) string { return shorten(text, 500) },
}).Parse(pageHTML))

func (p *page) write(b *bytes.Buffer) error { return pageTemplate.Execute(b, p) }
