package system

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	flagBinary = flag.String("rqlited", os.Getenv("RQLITED_BINARY"), "test this `binary` instead of building one; relative to the module root")
	flagRace   = flag.Bool("race-binary", os.Getenv("RQLITED_RACE") != "", "build the binary with the race detector")
	flagChaos  = flag.Duration("chaos", 15*time.Second, "how long TestChaos kills nodes; from a minute on also how long the long forms of other tests go on")
	flagRounds = flag.Int("rounds", 1, "how often TestRestartScenario stops and starts its nodes")
	flagSeed   = flag.Uint64("seed", 0, "seed of random choices; 0 means a new one each time")
	flagKeep   = flag.String("keep", "", "keep data directories and logs in this `directory`")
)

// rqlited is the path of the binary under test; set once by TestMain.
var rqlited string

// parallel is how many tests run at once unless -parallel says otherwise: more than there are
// processors, since most of the time a test waits for an election or for a disk.
const parallel = 5

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", fmt.Sprint(parallel)); err != nil {
		panic(err) // the flag has another name in this version of Go
	}
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "system_test:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return 0, err
	}
	if rqlited = *flagBinary; rqlited != "" {
		if !filepath.IsAbs(rqlited) {
			rqlited = filepath.Join(root, rqlited)
		}
		if _, err := os.Stat(rqlited); err != nil {
			return 0, err
		}
		if hashing = detectHashing(rqlited); !hashing {
			fmt.Fprintf(os.Stderr, "system_test: %s has no state hashes, only rows are compared\n", rqlited)
		}
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "rqlited-system-test")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	rqlited = filepath.Join(dir, "rqlited")
	if err := build(root, "./cmd/rqlited", rqlited); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func build(root, pkg, out string, flags ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // SQLite takes a while without a build cache
	defer cancel()
	args := append([]string{"build", "-o", out}, flags...)
	if *flagRace {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = root
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, msg)
	}
	return nil
}
