package lint

// rule is one check of the whole tree.
type rule struct {
	name  string
	check func(*tree) []fault
}

// rules are all checks there are.
var rules = []rule{
	{"imports", checkImports},
	{"file size", checkFileSize},
	{"function size", checkFuncSize},
	{"struct size", checkStructSize},
	{"package comment", checkDoc},
	{"sleep", checkSleep},
	{"exit", checkExit},
	{"words", checkWords},
}
