package sqltext

// PragmaName returns the lower-cased name of the first PRAGMA in sql for which
// Classify sets Pragma, "" if there is none.
func PragmaName(sql string) string {
	l := sqlLexer{NewLexer(sql)}
	for {
		st, ok := l.stmt()
		if !ok {
			return ""
		}
		if st.class&Pragma != 0 {
			return Name(st.name)
		}
	}
}

// pragma reads PRAGMA [schema.]name [= value | (value)]. Without a value a
// pragma reads a setting, or acts and leaves no setting behind. The name that
// is returned is the one as written.
func (l *sqlLexer) pragma() (c Class, name string) {
	schema := ""
	name = l.name()
	if l.Kind == Dot {
		l.Next()
		schema, name = name, l.name()
	}
	if l.Kind != Equals && l.Kind != Paren {
		return 0, name
	}
	l.Next()
	for _, p := range sessionNeutralPragmas {
		if SameName(name, p) {
			return 0, name
		}
	}
	for _, p := range filePragmas {
		if SameName(name, p) && !SameName(schema, "temp") {
			return 0, name
		}
	}
	if SameName(name, "journal_mode") && SameName(l.Text, "wal") {
		return 0, name // the one journal mode that is a property of the file
	}
	c = Pragma
	for _, p := range tempPragmas {
		if SameName(name, p) {
			c |= Temp
		}
	}
	return c, name
}

// The pragmas below may have an argument and still leave the session as it was,
// see https://www.sqlite.org/pragma.html. Every other one counts as a setting of
// the connection, also one that SQLite does not know: the VFS may.
var (
	// The argument says what to list, check or do now.
	sessionNeutralPragmas = [...]string{
		"table_info", "table_xinfo", "table_list",
		"index_info", "index_xinfo", "index_list", "foreign_key_list",
		"database_list", "collation_list", "function_list", "module_list", "pragma_list", "compile_options",
		"integrity_check", "quick_check", "foreign_key_check",
		"wal_checkpoint", "optimize", "incremental_vacuum", "shrink_memory",
		"data_version", "freelist_count", "page_count",
	}
	// The argument is written to the database file. The temp schema has a file
	// of the connection's own. (Not encoding: until the file has a page it is the
	// connection's.)
	filePragmas = [...]string{"user_version", "application_id"}
	// Changing where temp tables are kept drops them, and a writable schema
	// lets INSERT and DELETE work on the temp schema's table.
	tempPragmas = [...]string{"temp_store", "temp_store_directory", "writable_schema"}
)
