//go:build cgo

package leakguard_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// database/sql finds out by type assertions what a driver can do, so a wrapper
// that lacks an optional interface, or has one more, changes what programs see.
// parityTable says for every interface of database/sql/driver which values of
// go-sqlite3 and of the guard have it.
//
// The values are called conn, stmt, rows, tx, result, driver and connector. Of
// go-sqlite3 there is no connector: database/sql makes one of its own.
var parityTable = map[string]parityDecision{
	"Driver":    {typ: reflect.TypeFor[driver.Driver](), both: "driver", why: "what a driver is"},
	"Connector": {typ: reflect.TypeFor[driver.Connector](), ours: "connector", why: "a pool needs a place for its configuration and records"},
	"Conn":      {typ: reflect.TypeFor[driver.Conn](), both: "conn", why: "what a driver is"},
	"Stmt":      {typ: reflect.TypeFor[driver.Stmt](), both: "stmt", why: "what a driver is"},
	"Rows":      {typ: reflect.TypeFor[driver.Rows](), both: "rows", why: "what a driver is"},
	"Tx":        {typ: reflect.TypeFor[driver.Tx](), both: "tx", why: "what a driver is"},
	"Result":    {typ: reflect.TypeFor[driver.Result](), both: "result", why: "what a driver is; ours is go-sqlite3's own"},

	"DriverContext": {typ: reflect.TypeFor[driver.DriverContext](), ours: "driver", why: "sql.Open asks it for the pool's connector"},

	"Pinger":             {typ: reflect.TypeFor[driver.Pinger](), both: "conn", why: "DB.Ping"},
	"Execer":             {typ: reflect.TypeFor[driver.Execer](), both: "conn", why: "deprecated, for who asserts it on the raw connection"},
	"ExecerContext":      {typ: reflect.TypeFor[driver.ExecerContext](), both: "conn", why: "Exec without a prepared statement"},
	"Queryer":            {typ: reflect.TypeFor[driver.Queryer](), both: "conn", why: "deprecated, for who asserts it on the raw connection"},
	"QueryerContext":     {typ: reflect.TypeFor[driver.QueryerContext](), both: "conn", why: "Query without a prepared statement"},
	"ConnPrepareContext": {typ: reflect.TypeFor[driver.ConnPrepareContext](), both: "conn", why: "the caller's ctx has to come through"},
	"ConnBeginTx":        {typ: reflect.TypeFor[driver.ConnBeginTx](), both: "conn", why: "without it database/sql refuses TxOptions"},
	"SessionResetter":    {typ: reflect.TypeFor[driver.SessionResetter](), ours: "conn", why: "the sign of a check-out"},
	"Validator":          {typ: reflect.TypeFor[driver.Validator](), ours: "conn", why: "the sign of a check-in"},

	"StmtExecContext":   {typ: reflect.TypeFor[driver.StmtExecContext](), both: "stmt", why: "the caller's ctx has to come through"},
	"StmtQueryContext":  {typ: reflect.TypeFor[driver.StmtQueryContext](), both: "stmt", why: "the caller's ctx has to come through"},
	"NamedValueChecker": {typ: reflect.TypeFor[driver.NamedValueChecker](), why: "go-sqlite3 leaves arguments to database/sql"},
	"ColumnConverter":   {typ: reflect.TypeFor[driver.ColumnConverter](), why: "go-sqlite3 leaves arguments to database/sql"},

	"RowsNextResultSet":              {typ: reflect.TypeFor[driver.RowsNextResultSet](), why: "go-sqlite3 returns the last result set only"},
	"RowsColumnTypeScanType":         {typ: reflect.TypeFor[driver.RowsColumnTypeScanType](), both: "rows", why: "ColumnType.ScanType"},
	"RowsColumnTypeDatabaseTypeName": {typ: reflect.TypeFor[driver.RowsColumnTypeDatabaseTypeName](), both: "rows", why: "ColumnType.DatabaseTypeName"},
	"RowsColumnTypeLength":           {typ: reflect.TypeFor[driver.RowsColumnTypeLength](), why: "go-sqlite3 has it commented out"},
	"RowsColumnTypeNullable":         {typ: reflect.TypeFor[driver.RowsColumnTypeNullable](), both: "rows", why: "ColumnType.Nullable"},
	"RowsColumnTypePrecisionScale":   {typ: reflect.TypeFor[driver.RowsColumnTypePrecisionScale](), why: "go-sqlite3 has it commented out"},

	// For arguments, not for drivers.
	"ValueConverter":   {typ: reflect.TypeFor[driver.ValueConverter](), why: "of arguments"},
	"Valuer":           {typ: reflect.TypeFor[driver.Valuer](), why: "of arguments"},
	"decimalDecompose": {why: "of arguments, and not exported"},
}

// parityDecision says which values have an interface: those of both drivers, or
// only ours (never only theirs).
type parityDecision struct {
	typ        reflect.Type // nil: cannot be named from here
	both, ours string
	why        string
}

// parityMore are the interfaces from elsewhere that database/sql asks for.
var parityMore = map[string]parityDecision{
	"io.Closer": {typ: reflect.TypeFor[io.Closer](), both: "conn rows stmt", ours: "connector", why: "DB.Close closes the connector, which ends the pool"},
}

func TestParity(t *testing.T) {
	theirs, ours := parityValues(t, "sqlite3"), parityValues(t, "sqlite-leakguard")
	for name, v := range theirs {
		if got := reflect.TypeOf(v).String(); !strings.HasPrefix(got, "*sqlite3.") {
			t.Errorf("go-sqlite3's %s is a %s", name, got)
		}
	}
	for name, v := range ours {
		if got := reflect.TypeOf(v).String(); name != "result" && !strings.HasPrefix(got, "*leakguard.") {
			t.Errorf("our %s is a %s", name, got)
		}
	}

	decided := func(name string, d parityDecision) {
		both, more := strings.Fields(d.both), strings.Fields(d.ours)
		if got := parityHave(theirs, d.typ); !slices.Equal(got, both) {
			t.Errorf("go-sqlite3's %v have %s, the table says %v. Decide whether ours must have it too (it is there because: %s), "+
				"give it to them or not, and write that into parityTable", got, name, both, d.why)
		}
		want := slices.Sorted(slices.Values(slices.Concat(both, more)))
		if got := parityHave(ours, d.typ); !slices.Equal(got, want) {
			t.Errorf("our %v have %s, the table says %v (%s)", got, name, want, d.why)
		}
	}
	declared := parityDeclared(t)
	for name, methods := range declared {
		d, ok := parityTable[name]
		switch {
		case !ok:
			t.Errorf("driver.%s %v is new. Methods of these names are on go-sqlite3's %v and on our %v. "+
				"If go-sqlite3 has the interface, ours must have it too, in a file with a build tag for this version of Go; "+
				"if not, ours must not have it. Then write it into parityTable", name, methods, parityNamed(theirs, methods), parityNamed(ours, methods))
		case d.typ == nil:
			if got := slices.Concat(parityNamed(theirs, methods), parityNamed(ours, methods)); len(got) > 0 {
				t.Errorf("%v have the methods of driver.%s (%s): decide about it in parityTable", got, name, d.why)
			}
		default:
			// The table must mean the interface that is declared.
			if d.typ.Name() != name || d.typ.PkgPath() != "database/sql/driver" {
				t.Errorf("driver.%s is %v in parityTable", name, d.typ)
			}
			decided("driver."+name, d)
		}
	}
	for name, d := range parityTable {
		if _, ok := declared[name]; !ok {
			t.Errorf("driver.%s is in parityTable but not in this version of Go: it was renamed or moved", name)
		}
		if d.why == "" {
			t.Errorf("parityTable does not say why for driver.%s", name)
		}
	}
	for name, d := range parityMore {
		decided(name, d)
	}
}

// TestParityNoticesNewInterfaces makes sure that the comparison sees an
// interface which nobody decided about.
func TestParityNoticesNewInterfaces(t *testing.T) {
	declared := parityParse(t, token.NewFileSet(), "new.go", `package driver
		type RowsColumnScanner interface {
			Rows
			ScanColumn(i int, dest any) error
		}
		type Value any
		type NotNull[T any] struct{ V T }
		type alias = Rows
	`)
	if want := map[string][]string{"RowsColumnScanner": {"ScanColumn"}}; !reflect.DeepEqual(declared, want) {
		t.Errorf("got %v, want %v", declared, want)
	}
	values := map[string]any{"a": parityScanner{}, "b": 1}
	if got := parityNamed(values, []string{"ScanColumn"}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("the method is found on %v", got)
	}
	if got := parityHave(values, reflect.TypeFor[interface{ ScanColumn() }]()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("the interface is found on %v", got)
	}
}

type parityScanner struct{}

func (parityScanner) ScanColumn() {}

// parityHave returns the values that have the interface, sorted.
func parityHave(values map[string]any, typ reflect.Type) []string {
	names := []string{}
	for name, v := range values {
		if reflect.TypeOf(v).Implements(typ) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// parityNamed returns the values that have methods of all these names.
func parityNamed(values map[string]any, methods []string) []string {
	names := []string{}
	for name, v := range values {
		if !slices.ContainsFunc(methods, func(m string) bool {
			_, ok := reflect.TypeOf(v).MethodByName(m)
			return !ok
		}) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// parityDeclared returns every interface that this Go's database/sql/driver
// declares, with the names of its own methods.
func parityDeclared(t *testing.T) map[string][]string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src", "database", "sql", "driver")
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || !slices.Contains(files, filepath.Join(dir, "driver.go")) {
		t.Fatalf("no driver.go in %s: %v", dir, err)
	}
	declared := make(map[string][]string)
	fset := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for name, methods := range parityParse(t, fset, file, nil) {
			declared[name] = methods
		}
	}
	if len(declared) < 20 {
		t.Fatalf("%d interfaces in %s", len(declared), dir)
	}
	return declared
}

func parityParse(t *testing.T, fset *token.FileSet, file string, src any) map[string][]string {
	t.Helper()
	f, err := parser.ParseFile(fset, file, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	declared := make(map[string][]string)
	for _, decl := range f.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			typ, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			iface, ok := typ.Type.(*ast.InterfaceType)
			if !ok {
				continue
			}
			methods := []string{}
			for _, m := range iface.Methods.List {
				for _, name := range m.Names {
					methods = append(methods, name.Name)
				}
			}
			declared[typ.Name.Name] = methods
		}
	}
	return declared
}

// parityValues opens one of everything through a registered driver.
func parityValues(t *testing.T, driverName string) map[string]any {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", driverName, err)
		}
	}
	db, err := sql.Open(driverName, ":memory:")
	check(err)
	t.Cleanup(func() { db.Close() })
	values := map[string]any{"driver": db.Driver()}
	var conn driver.Conn
	if d, ok := db.Driver().(driver.DriverContext); ok {
		connector, err := d.OpenConnector(":memory:")
		check(err)
		t.Cleanup(func() {
			if c, ok := connector.(io.Closer); ok {
				c.Close()
			}
		})
		values["connector"] = connector
		conn, err = connector.Connect(context.Background())
		check(err)
	} else {
		conn, err = db.Driver().Open(":memory:")
		check(err)
	}
	t.Cleanup(func() { conn.Close() })
	values["conn"] = conn

	result, err := conn.(driver.ExecerContext).ExecContext(context.Background(), "CREATE TABLE t (a)", nil)
	check(err)
	values["result"] = result
	stmt, err := conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), "SELECT a FROM t")
	check(err)
	t.Cleanup(func() { stmt.Close() })
	values["stmt"] = stmt
	rows, err := conn.(driver.QueryerContext).QueryContext(context.Background(), "SELECT a FROM t", nil)
	check(err)
	t.Cleanup(func() { rows.Close() })
	values["rows"] = rows
	tx, err := conn.(driver.ConnBeginTx).BeginTx(context.Background(), driver.TxOptions{ReadOnly: true})
	check(err)
	t.Cleanup(func() { tx.Rollback() })
	values["tx"] = tx

	// Whichever way they come, they are of one type.
	again, err := stmt.(driver.StmtQueryContext).QueryContext(context.Background(), nil)
	check(err)
	t.Cleanup(func() { again.Close() })
	inTx, err := stmt.(driver.StmtExecContext).ExecContext(context.Background(), nil)
	check(err)
	opened, err := db.Driver().Open(":memory:")
	check(err)
	t.Cleanup(func() { opened.Close() })
	for name, v := range map[string]any{"rows": again, "result": inTx, "conn": opened} {
		if got, want := fmt.Sprintf("%T", v), fmt.Sprintf("%T", values[name]); got != want {
			t.Errorf("%s: %s is a %s here and a %s there", driverName, name, want, got)
		}
	}
	return values
}
