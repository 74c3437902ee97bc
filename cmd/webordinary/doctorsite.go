package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/webordinary/claude-code-container/internal/aws/bucket"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/internal/workspace"
)

// site checks the pair's bucket.
func (d *doctor) site(ctx context.Context) []finding {
	if d.pair == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	name := d.names.Bucket(d.pair.ProjectID)
	store := bucket.NewClient(d.aws, d.config.S3PathStyle)
	if _, err := store.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &name}); err != nil {
		return []finding{bucketFinding(name, err)}
	}
	return []finding{ok("bucket", "%s is there", name), website(ctx, store, name), public(ctx, store, name)}
}

// bucketFinding reads the answer to a HEAD, which has a status and no text.
func bucketFinding(name string, err error) finding {
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		switch response.HTTPStatusCode() {
		case http.StatusNotFound:
			return bad(levelFail, "bucket", name+" is not there", "create it; or set S3_BUCKET_PATTERN right")
		case http.StatusForbidden:
			return bad(levelFail, "bucket", name+" is another account's, or not allowed", "allow s3:ListBucket on it")
		case http.StatusMovedPermanently:
			return bad(levelFail, "bucket", name+" is in another region", "set AWS_REGION to that of the bucket")
		}
	}
	return awsFinding("bucket", "s3:ListBucket", err)
}

func website(ctx context.Context, store *s3.Client, name string) finding {
	out, err := store.GetBucketWebsite(ctx, &s3.GetBucketWebsiteInput{Bucket: &name})
	switch {
	case errorCode(err) == "NoSuchWebsiteConfiguration":
		return bad(levelWarn, "bucket", name+" is no website", "give it one with the index document index.html, if nothing else serves it")
	case err != nil:
		return softened(awsFinding("bucket", "s3:GetBucketWebsite", err))
	case out.IndexDocument == nil || aws.ToString(out.IndexDocument.Suffix) != "index.html":
		return bad(levelWarn, "bucket", name+"'s website has another index document", "set it to index.html, which builds have")
	}
	return ok("bucket", "%s is a website with index.html", name)
}

// public reports whether everybody may read the site. It may be served in other ways.
func public(ctx context.Context, store *s3.Client, name string) finding {
	out, err := store.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: &name})
	private := bad(levelWarn, "bucket", name+" is not for everybody to read", "let its policy allow s3:GetObject to all, if nothing like CloudFront serves it")
	switch {
	case errorCode(err) == "NoSuchBucketPolicy":
		return private
	case err != nil:
		return softened(awsFinding("bucket", "s3:GetBucketPolicy", err))
	case !allowsAll(aws.ToString(out.Policy)):
		return private
	}
	return ok("bucket", "%s is for everybody to read", name)
}

// softened is for what a site can be without.
func softened(f finding) finding {
	f.Level = levelWarn
	return f
}

func errorCode(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// allowsAll reports whether a policy lets everybody read objects.
func allowsAll(policy string) bool {
	var p struct {
		Statement []struct {
			Effect            string
			Principal, Action any
			Condition         map[string]any
		}
	}
	if json.Unmarshal([]byte(policy), &p) != nil {
		return false
	}
	for _, s := range p.Statement {
		who := s.Principal
		if m, ok := who.(map[string]any); ok {
			who = m["AWS"]
		}
		if s.Effect == "Allow" && has(who, "*") && len(s.Condition) == 0 && (has(s.Action, "s3:GetObject") || has(s.Action, "s3:*") || has(s.Action, "*")) {
			return true
		}
	}
	return false
}

// has reports whether v is a word, or a list with it.
func has(v any, word string) bool {
	switch v := v.(type) {
	case string:
		return v == word
	case []any:
		return slices.Contains(v, any(word))
	}
	return false
}

// gitToken asks the remote what it asks before a push.
func (d *doctor) gitToken(ctx context.Context) []finding {
	repo := d.options.repo
	if repo == "" && d.pair != nil {
		repo = d.knownRepo(*d.pair)
	}
	switch {
	case d.config.GitHubToken == "" && repo == "":
		return []finding{bad(levelWarn, "git token", "GITHUB_TOKEN is not set", "set it, unless all repositories can be written without")}
	case repo == "":
		return []finding{ok("git token", "set; --repo tries whether it may push")}
	}
	rules := protocol.Rules{AllowedRepoHosts: d.config.AllowedRepoHosts, Names: d.names}
	if err := rules.CheckRepo(repo); err != nil {
		return []finding{bad(levelFail, "git token", err.Error(), "set ALLOWED_REPO_HOSTS, or give another --repo")}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	return []finding{d.tryPush(ctx, repo)}
}

// knownRepo is the repository of the pair's workspace; empty if it is not here.
func (d *doctor) knownRepo(p protocol.Pair) string {
	var owner struct{ ProjectID, UserID, RepoURL string }
	body, err := os.ReadFile(filepath.Join(d.config.workspaces(), p.Dir(), "worker", "owner.json"))
	if err != nil || json.Unmarshal(body, &owner) != nil || owner.ProjectID != p.ProjectID || owner.UserID != p.UserID {
		return ""
	}
	return owner.RepoURL
}

func (d *doctor) tryPush(ctx context.Context, repo string) finding {
	workspace.NoRedirects(client.InstallProtocol)
	u, err := transport.NewEndpoint(repo)
	if err != nil {
		return bad(levelFail, "git token", repo+" is no repository's URL", "give another --repo")
	}
	remote, err := client.NewClient(u)
	if err != nil {
		return bad(levelFail, "git token", lastLine(err), "give another --repo")
	}
	var auth transport.AuthMethod
	if d.config.GitHubToken != "" {
		auth = &githttp.BasicAuth{Username: "x-access-token", Password: d.config.GitHubToken}
	}
	session, err := remote.NewReceivePackSession(u, auth)
	if err != nil {
		return bad(levelFail, "git token", lastLine(err), "give another --repo")
	}
	defer session.Close() //nolint:errcheck // nothing was sent
	_, err = session.AdvertisedReferencesContext(ctx)
	switch {
	case err == nil || errors.Is(err, transport.ErrEmptyRemoteRepository):
		return ok("git token", "may push to %s", repo)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return bad(levelFail, "git token", "may not push to "+repo, "give GITHUB_TOKEN write access to its contents, or renew it")
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return bad(levelFail, "git token", repo+" is not there, or not shown to this token", "see the URL, and what GITHUB_TOKEN may see")
	}
	return bad(levelFail, "git token", fmt.Sprintf("%s does not answer: %s", u.Host, strings.ReplaceAll(lastLine(err), repo, "")), "see that it can be reached from here")
}
