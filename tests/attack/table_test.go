package attack

// row is one attack, or several that stand or fall together, as docs/security.md
// has it.
type row struct {
	what     string   // of the attacker
	outcomes []string // as hostile names them; none if other shows it
	open     []string // the walls that do not stop it, besides off
	// other is what stops it under every wall, and without one; empty if it is the
	// wall alone. Then the attack succeeds with SANDBOX=off.
	other string
	// proof is the test that shows it to succeed without other.
	proof string
	note  string // what to do where a wall leaves it open
}

const (
	bubblewrap = "bubblewrap"
	users      = "users"
	bare       = "users, no Landlock" // as on Fargate
	landlock   = "landlock"
)

// walls are those that each row is tried against.
func walls() []string { return []string{"off", bubblewrap, users, bare, landlock} }

func rows() []row { return append(append(wallRows(), otherRows()...), workerRows()...) }

// wallRows are what a wall stops and nothing else does.
func wallRows() []row {
	return []row{
		{what: "Read the environment of a process of the worker's user that does not hide it", outcomes: []string{"other_environ", "build_other_environ", "config_other_environ", "postinstall_other_environ"}},
		{what: "Read the memory of such a process, or trace it", outcomes: []string{"other_memory", "other_ptrace"}},
		{what: "Read the git token in the environment of the worker's own git", outcomes: []string{"git_token"}},
		{what: "Signal the worker", outcomes: []string{"worker_signal"}},
		{what: "Set the worker's limits", outcomes: []string{"worker_prlimit"}},
		{what: "Choose the processors that the worker runs on", outcomes: []string{"worker_affinity"}, open: []string{landlock}, note: "It can slow the worker down; the deadlines hold."},
		{what: "Freeze the keeper", outcomes: []string{"keeper_stop"}},
		{what: "Read the environment or the memory of another project's job, and its token for the model", outcomes: []string{"victim_environ", "victim_memory"}},
		{what: "Signal or trace another project's job", outcomes: []string{"victim_signal", "victim_ptrace"}},
		{what: "Call the model by another job's gateway, with a token that leaked", outcomes: []string{"gateway_other_job"}, open: []string{bare}, note: "The token does not leak: the attack above that would get it is stopped."},
		{what: "Read memory that processes of the worker's user share", outcomes: []string{"shared_memory"}},
		{what: "Read the arguments of other programs", outcomes: []string{"arguments"}, open: []string{users, bare, landlock}, note: "The worker gives no program a secret as an argument."},
		{what: "Read or change another project's checkout", outcomes: []string{"victim_site_read", "victim_site_write", "build_victim_site_read", "config_victim_site_read", "postinstall_victim_site_read"}},
		{what: "Read another project's running job, or its conversations", outcomes: []string{"victim_job_read", "victim_transcript"}},
		{what: "Read another project's repository, or poison its packages", outcomes: []string{"victim_repository", "victim_cache_write", "victim_downloads_write"}},
		{what: "List which projects have a workspace here", outcomes: []string{"workspaces_list"}, open: []string{bare}, note: "The ids are seen, and nothing else. Give the directory of all workspaces mode 0711."},
		{what: "Change what the worker remembers of the project: whose it is, which command the checkout is for", outcomes: []string{"own_state_write", "own_owner_write", "build_own_state_write", "config_own_state_write", "postinstall_own_state_write"}},
		{what: "Change modes and times of the worker's files", outcomes: []string{"own_state_modes"}, open: []string{landlock}, note: "It reads and writes none of them, and can keep the worker from them: a denial of service across projects. Prefer another wall where projects do not trust each other."},
		{what: "Read the project's other conversations, or write to its store of packages", outcomes: []string{"own_conversations", "own_cache_write"}},
		{what: "Write to the worker's repository: configuration, hooks, branches, objects", outcomes: []string{"own_git_config", "own_git_hooks", "own_git_refs", "own_git_objects"}},
		{what: "Put a link in the place of the checkout or the job's directory", outcomes: []string{"site_replaced", "job_replaced"}},
		{what: "Read or write the home of the worker's user", outcomes: []string{"home_read", "home_write"}},
		{what: "Write to the journal, or to the live site", outcomes: []string{"journal_write", "live_site_write"}},
		{what: "Leave files in /tmp and /dev/shm for the next project", outcomes: []string{"temporary_files"}, open: []string{bare}, note: "Mount nothing there that programs of several projects trust."},
		{what: "Connect to other servers on loopback: emulators, another worker's gateway, the model's service", outcomes: []string{"loopback", "build_loopback", "config_loopback", "postinstall_loopback"}, open: []string{bare}, note: "Let nothing listen on loopback in the container that asks for no password."},
		{what: "Connect to the metadata service, 169.254.169.254", outcomes: []string{"metadata", "build_metadata", "config_metadata", "postinstall_metadata"}, open: []string{bare}, note: "Block it outside of the container where it exists: on EC2, a hop limit of 1. The task's credentials on ECS are at 169.254.170.2, and need a path that the worker alone knows."},
		{what: "Connect to a host outside, by TCP", outcomes: []string{"outside_tcp", "build_outside_tcp", "config_outside_tcp", "postinstall_outside_tcp"}, open: []string{bare}, note: "Let a security group close all but what the worker needs."},
		{what: "Send to a host outside by UDP, as a name server would be asked", outcomes: []string{"outside_udp"}},
		{what: "Connect to a unix socket of the machine, with or without a name in the file system", outcomes: []string{"unix_socket", "abstract_socket"}},
		{what: "Have the setuid keeper run a program as another project", outcomes: []string{"keeper_as_victim"}},
		{what: "Gain rights by a setuid program", outcomes: []string{"privileges"}},
	}
}

// otherRows are tried behind each wall, and stopped by something else.
func otherRows() []row {
	return []row{
		{what: "Find a token in its own environment: as agent, build script, configuration of Astro, or postinstall", outcomes: []string{"environment", "build_environment", "config_environment", "postinstall_environment"}, other: "an explicit environment", proof: "TestUnguarded"},
		{what: "Read the environment, memory, maps or root directory of the worker, or trace it. It is process 1, as in the image", outcomes: []string{"worker_environ", "worker_memory", "worker_maps", "worker_root", "worker_ptrace", "build_worker_environ", "config_worker_environ", "postinstall_worker_environ"}, other: "the worker is not dumpable", proof: "TestWalls"},
		{what: "Read the environment or the memory of a health check, or trace it", outcomes: []string{"health_environ", "health_memory", "health_ptrace", "build_health_environ", "config_health_environ", "postinstall_health_environ"}, other: "it is not dumpable from the moment on in which it does something", proof: "TestWalls"},
		{what: "Read the keeper's memory, trace it, or write orders into its pipe", outcomes: []string{"keeper_memory", "keeper_ptrace", "keeper_control"}, other: "the keeper is not dumpable", proof: "TestWalls"},
		{what: "Leave a core dump with a secret, or raise the limit of one", outcomes: []string{"core_limit"}, other: "a hard limit of 0, also the worker's", proof: "TestUnguarded"},
		{what: "Type into the terminal that the worker was started from", outcomes: []string{"terminal"}, other: "a session of its own", proof: "TestUnguarded"},
		{what: "Open the machine's disks, memory and devices", outcomes: []string{"devices"}, other: "the worker's user is not root", proof: "TestUnguarded"},
		{what: "Read /etc/shadow", outcomes: []string{"shadow_read"}, other: "the worker's user is not root", proof: "TestUnguarded"},
		{what: "Have the setuid keeper run a program as root", outcomes: []string{"keeper_as_root"}, other: "the keeper knows no user but those of projects", proof: "TestWalls"},
		{what: "Call another model", outcomes: []string{"gateway_other_model"}, other: "the gateway", proof: "TestGatewayIsTheOnlyWay"},
		{what: "Have the model's service fetch and call by itself: its tools, MCP servers, files", outcomes: []string{"gateway_server_tool", "gateway_mcp", "gateway_other_path"}, other: "the gateway", proof: "TestGatewayIsTheOnlyWay"},
		{what: "Call the gateway without a token, or with another job's", outcomes: []string{"gateway_without_token", "gateway_token_of_other_job"}, other: "a token for each run", proof: "TestWalls"},
		{what: "Call the gateway after the agent's run, from build, configuration or postinstall", outcomes: []string{"build_gateway_after_agent", "config_gateway_after_agent", "postinstall_gateway_after_agent"}, other: "it is closed before npm starts", proof: "TestWalls"},
		{what: "Have the proxy connect to loopback, to the metadata service, or to a host that is not listed", outcomes: []string{"proxy_loopback", "proxy_metadata", "proxy_outside"}, other: "AGENT_ALLOWED_HOSTS", proof: "TestProxyLetsThroughWhatIsListed"},
		{what: "Leave a process that outlives the job: a session of its own, nobody's child", outcomes: []string{"outlive"}, other: "the keeper", proof: "TestNothingOutlivesItsJob"},
	}
}

// workerRows aim at what the worker does with what a child, the repository or a sender
// has left. They are tried without a wall.
func workerRows() []row {
	return []row{
		{what: "Spend more than AGENT_MAX_TOKENS", other: "the gateway", proof: "TestGatewayCap"},
		{what: "Hooks, filters, fsmonitor, includes, text conversion, worktree configuration in the checkout's repository, and in the worker's", other: "the worker's git has a repository and a configuration of its own", proof: "TestGitIsDeaf"},
		{what: "`insteadOf`, a proxy, a credential helper for git", other: "the same", proof: "TestGitIsDeaf"},
		{what: "`.git` as a file or a link; submodules", other: "the same", proof: "TestGitIsDeaf"},
		{what: "Another project's objects by alternates", other: "the same, and the wall", proof: "TestAlternates"},
		{what: "Changes to .github/workflows", other: "they are left out of the commit", proof: "TestWorkflows"},
		{what: "A commit of ten billion files, a file of more than 100 MB", other: "the files of a commit are counted, and their bytes", proof: "TestObjectBombs, TestLargeFile"},
		{what: "Locks, FIFOs, names like options, files without rights, broken repositories: what keeps git from its work", other: "the checkout is brought into order", proof: "TestGitGoesOn"},
		{what: "`.claude/settings.json` with hooks and environment, `.mcp.json`, commands; also left by the agent for its next run", other: "the CLI reads settings of the worker's alone", proof: "TestRepositoryDoesNotConfigureTheCLI"},
		{what: "Links and FIFOs for the transcript, CLAUDE.md and temporary files", other: "nothing a child left is followed or waited for", proof: "TestLinksToTheWorkersFiles"},
		{what: "Ids that are paths, options, refs, escapes or programs", other: "ids are checked, and made into names", proof: "TestIDsAndAddresses, TestThreadsAreNoRefs"},
		{what: "`--upload-pack=…`, `ext::`, ssh options, `file://`, passwords and other hosts as repoUrl", other: "addresses are checked", proof: "TestIDsAndAddresses, TestPlainlyTheyWork"},
		{what: "A remote that redirects to another host, or asks for the token there", other: "redirects are not followed, and ALLOWED_REPO_HOSTS", proof: "TestRedirects, TestTokenGoesNowhereElse"},
		{what: "Links in dist, dist itself a link, FIFOs, `.env` and keys in dist, hidden files, a site of more than 1 GB", other: "the deploy refuses them by name", proof: "TestDeployTakesTheSiteAlone"},
		{what: "Links in public/", other: "they are refused before the build", proof: "TestLinksInPublic"},
		{what: "Terminal escapes in what agent and build say", other: "they are neutralised", proof: "TestEscapesInLogs"},
		{what: "Secrets in what agent and build say", other: "they are redacted", proof: "TestSecretsAreRedacted"},
		{what: "Fork bombs, memory, and files without end", other: "the keeper's limits", proof: "TestBombs"},
	}
}
