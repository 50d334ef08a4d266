"""The stand-in's API, after forgejo.md §3.5 and §3.6."""

from __future__ import annotations

from typing import Any

from fjmcp.demo.forge.accounts import Organization, Person, Team
from tests.demo.standing import URL, Reply, StandInCase

GARDEN = "/api/v1/repos/alice/garden"
DIARY = "/api/v1/repos/alice/diary"
LEDGER = "/api/v1/repos/bob/ledger"

ORGS = "/api/v1/user/orgs"
TEAMS = "/api/v1/user/teams"

ORGANIZATION = [
    "id",
    "name",
    "full_name",
    "email",
    "avatar_url",
    "description",
    "website",
    "location",
    "visibility",
    "repo_admin_change_team_access",
    "username",
]
TEAM = [
    "id",
    "name",
    "description",
    "organization",
    "includes_all_repositories",
    "permission",
    "units",
    "units_map",
    "can_create_org_repo",
]

MEMBERS = [
    "id",
    "login",
    "login_name",
    "source_id",
    "full_name",
    "email",
    "avatar_url",
    "html_url",
    "language",
    "is_admin",
    "last_login",
    "created",
    "restricted",
    "active",
    "prohibit_login",
    "location",
    "pronouns",
    "website",
    "description",
    "visibility",
    "followers_count",
    "following_count",
    "starred_repos_count",
    "username",
]


class PeopleTests(StandInCase):
    """Who is allowed in."""

    def test_version(self) -> None:
        """The version is for everybody, and needs no scope."""
        version = {"version": "16.0.0+gitea-1.22.0"}
        self.assertEqual(self.ask("GET", "/api/v1/version").json, version)
        token = self.pair(scope="read:notification")["access_token"]
        self.assertEqual(self.ask("GET", "/api/v1/version", bearer=token).json, version)

    def test_bad_token_everywhere(self) -> None:
        """A bad token is 401 on every path, the version's, public and unknown ones too."""
        for path in ("/api/v1/version", GARDEN, "/api/v1/nowhere", "/api/v1/repos/search"):
            self.assertEqual(self.ask("GET", path, bearer="garbage").status, 401)

    def test_user(self) -> None:
        """The user has exactly Forgejo's members."""
        user = self.ask("GET", "/api/v1/user", bearer=self.pair()["access_token"]).json
        self.assertEqual(list(user), MEMBERS)
        self.assertEqual((user["id"], user["login"], user["is_admin"]), (2, "alice", False))

    def test_administrator(self) -> None:
        """An administrator's user says so, to themselves."""
        self.forge.instance.people[1].is_admin = True
        for login, is_admin in (("alice", False), ("bob", True)):
            user = self.ask("GET", "/api/v1/user", bearer=self.pair(login)["access_token"]).json
            self.assertEqual(user["is_admin"], is_admin)

    def test_nobody(self) -> None:
        """Without a credential: 401 `token is required`."""
        for path in ("/api/v1/user", "/api/v1/user/repos", ORGS, TEAMS):
            reply = self.ask("GET", path)
            self.assertEqual(reply.status, 401)
            said = {"message": "token is required", "url": f"{URL}/api/swagger"}
            self.assertEqual(reply.json, said)

    def test_blocked(self) -> None:
        """Prohibited, inactive, or with a password to change: 403, and it says why."""
        token = self.pair()["access_token"]
        alice = self.forge.instance.people[0]
        for switch, text in (
            ("prohibited", "This account is prohibited from signing in"),
            ("must_change_password", "You must change your password."),
        ):
            setattr(alice, switch, True)
            reply = self.ask("GET", "/api/v1/version", bearer=token)
            self.assertEqual(reply.status, 403)
            self.assertIn(text, reply.json["message"])
            setattr(alice, switch, False)
        alice.active = False
        self.assertEqual(self.ask("GET", "/api/v1/user", bearer=token).status, 403)

    def test_password_stays_inside(self) -> None:
        """A person's password is in no repr."""
        self.assertNotIn("hush", repr(Person(9, "x", "X", "hush")))


class OrganizationTests(StandInCase):
    """Organizations and teams, after routers/api/v1/org and services/convert of Forgejo."""

    SCOPE = "read:user read:organization"

    def mine(self, path: str, login: str = "alice") -> list[dict[str, Any]]:
        """A list, as this person sees it."""
        entries: list[dict[str, Any]] = self.ask(
            "GET", path, bearer=self.pair(login, self.SCOPE)["access_token"]
        ).json
        return entries

    def test_members(self) -> None:
        """An organization and a team have exactly Forgejo's members."""
        [organization] = self.mine(ORGS)
        self.assertEqual(list(organization), ORGANIZATION)
        self.assertEqual((organization["id"], organization["name"]), (4, "Allotment"))
        [team] = self.mine(TEAMS)
        self.assertEqual(list(team), TEAM)
        self.assertEqual(team["organization"], organization)
        self.assertEqual((team["name"], team["permission"]), ("Keepers", "write"))

    def test_whose(self) -> None:
        """A person's lists are their own; who is in a team is in its organization."""
        [team] = self.mine(TEAMS, "bob")
        self.assertEqual((team["name"], team["permission"]), ("Owners", "owner"))
        bob = self.forge.instance.people[1]
        for each in self.forge.instance.organizations[0].teams:
            each.members = [member for member in each.members if member is not bob]
        self.assertEqual(self.mine(TEAMS, "bob"), [])
        self.assertEqual(self.mine(ORGS, "bob"), [])
        self.assertEqual(len(self.mine(ORGS)), 1)

    def test_pages(self) -> None:
        """Both lists come in pages by name, with a count of all."""
        alice, instance = self.forge.instance.people[0], self.forge.instance
        zoo = Organization(5, "aviary", "Birds", [Team(9, "Feeders", "read", [alice])])
        instance.organizations.append(zoo)
        token = self.pair(scope=self.SCOPE)["access_token"]
        for path, names in ((ORGS, ["Allotment", "aviary"]), (TEAMS, ["Feeders", "Keepers"])):
            for page, name in enumerate(names, 1):
                reply = self.ask("GET", f"{path}?page={page}&limit=1", bearer=token)
                self.assertEqual([entry["name"] for entry in reply.json], [name])
                self.assertEqual(reply.header("X-Total-Count"), "2")

    def test_scopes(self) -> None:
        """Teams need read:user, organizations both scopes at once, which the refusal names."""
        for scope, path, missing in (
            ("read:user", TEAMS, None),
            ("write:user write:organization", ORGS, None),
            ("read:organization", TEAMS, "read:user"),
            ("read:user", ORGS, "read:user read:organization"),
            ("read:organization", ORGS, "read:user read:organization"),
        ):
            self.forge.revoke("alice")
            reply = self.ask("GET", path, bearer=self.pair(scope=scope)["access_token"])
            if missing is None:
                self.assertEqual(reply.status, 200)
            else:
                text = f"token does not have at least one of required scope(s): [{missing}]"
                self.assertEqual((reply.status, reply.json["message"]), (403, text))

    def say(self, path: str, login: str = "alice", scope: str = "read:organization") -> Reply:
        """What this person is told."""
        token = self.pair(login, scope)["access_token"]
        return self.ask("GET", f"/api/v1/{path}", bearer=token)

    def test_member(self) -> None:
        """Of themselves, and to members, Forgejo says who belongs to an organization; it leads
        others to the public members."""
        carol, root = Person(9, "carol", "C", "-"), Person(10, "root", "R", "-", is_admin=True)
        self.forge.instance.people += [carol, root]
        for asked, login, status in (
            ("allotment/members/alice", "alice", 204),
            ("ALLOTMENT/members/ALICE", "alice", 204),
            ("allotment/members/bob", "alice", 204),
            ("allotment/members/carol", "alice", 404),
            ("allotment/members/carol", "carol", 404),
            ("allotment/members/root", "root", 404),
            ("allotment/members/alice", "root", 204),
            ("allotment/members/nobody", "alice", 404),
            ("zoo/members/alice", "alice", 404),
            ("allotment/members/alice", "carol", 303),
        ):
            reply = self.say(f"orgs/{asked}", login)
            self.assertEqual(reply.status, status, (asked, login))
            if status == 404:
                self.assertEqual(reply.json["url"], f"{URL}/api/swagger")
            if status == 303:
                place = "/api/v1/orgs/Allotment/public_members/alice"
                self.assertEqual(reply.header("Location"), place)

    def test_search(self) -> None:
        """A search for teams finds the person's own, an administrator's all, nobody else's."""
        carol, root = Person(9, "carol", "C", "-"), Person(10, "root", "R", "-", is_admin=True)
        self.forge.instance.people += [carol, root]
        for word, login, names in (
            ("keepers", "alice", ["Keepers"]),
            ("", "alice", ["Keepers"]),
            ("EEP", "alice", ["Keepers"]),
            ("owners", "alice", []),
            ("keepers", "bob", []),
            ("", "root", ["Keepers", "Owners", "visitors"]),
        ):
            reply = self.say(f"orgs/allotment/teams/search?q={word}&include_desc=false", login)
            self.assertEqual([team["name"] for team in reply.json["data"]], names, (word, login))
            self.assertEqual(reply.header("X-Total-Count"), str(len(names)))
        reply = self.say("orgs/allotment/teams/search?q=keepers", "carol")
        self.assertEqual(
            (reply.status, reply.json["message"]), (403, "Must be an organization member")
        )
        self.assertEqual(self.say("orgs/zoo/teams/search?q=keepers").status, 404)

    def test_team_member(self) -> None:
        """Who is in a team is told to those in it, to owners and to administrators."""
        carol, root = Person(9, "carol", "C", "-"), Person(10, "root", "R", "-", is_admin=True)
        self.forge.instance.people += [carol, root]
        for asked, login, status in (
            ("2/members/alice", "alice", 200),
            ("2/members/bob", "alice", 404),
            ("2/members/alice", "bob", 200),
            ("2/members/bob", "bob", 404),
            ("1/members/alice", "alice", 403),
            ("2/members/carol", "carol", 404),
            ("2/members/root", "root", 404),
            ("2/members/alice", "root", 200),
            ("77/members/alice", "alice", 404),
            ("x/members/alice", "alice", 404),
        ):
            reply = self.say(f"teams/{asked}", login)
            self.assertEqual(reply.status, status, (asked, login))
            if status == 200:
                self.assertEqual((reply.json["id"], reply.json["login"]), (2, "alice"))
            if status == 403:
                self.assertEqual(reply.json["message"], "Must be a team member")

    def test_asked_about_by_scope(self) -> None:
        """Each of these needs read:organization, and a private organization is closed to a token
        for what is public."""
        paths = ("orgs/allotment/members/alice", "orgs/allotment/teams/search")
        for path in (*paths, "teams/2/members/alice"):
            self.forge.revoke("alice")
            reply = self.say(path, scope="read:user")
            text = "token does not have at least one of required scope(s): [read:organization]"
            self.assertEqual((reply.status, reply.json["message"]), (403, text))
            self.assertEqual(self.ask("GET", f"/api/v1/{path}").status, 401)
        for path in paths:
            self.forge.revoke("alice")
            reply = self.say(path, scope="public-only read:organization")
            text = "token scope is limited to public orgs"
            self.assertEqual((reply.status, reply.json["message"]), (403, text))


class RepositoryTests(StandInCase):
    """Repositories and who sees them."""

    def names(self, path: str, token: str | None = None) -> list[str]:
        """The full names of a list."""
        answer = self.ask("GET", path, bearer=token).json
        entries: list[dict[str, Any]] = answer["data"] if isinstance(answer, dict) else answer
        return [entry["full_name"] for entry in entries]

    def test_own(self) -> None:
        """A person's list has the private ones, and nobody else's."""
        for login, names in (
            ("alice", ["alice/garden", "alice/diary"]),
            ("bob", ["bob/workshop", "bob/ledger"]),
        ):
            token = self.pair(login)["access_token"]
            self.assertEqual(self.names("/api/v1/user/repos", token), names)

    def test_pages(self) -> None:
        """Lists come in pages, with a count of all."""
        token = self.pair()["access_token"]
        for query, names in (
            ("limit=1", ["alice/garden"]),
            ("limit=1&page=2", ["alice/diary"]),
            ("limit=1&page=3", []),
            ("limit=x&page=-1", ["alice/garden", "alice/diary"]),
        ):
            self.assertEqual(self.names(f"/api/v1/user/repos?{query}", token), names)
        reply = self.ask("GET", "/api/v1/user/repos?limit=1", bearer=token)
        self.assertEqual(reply.header("x-total-count"), "2")

    def test_search(self) -> None:
        """Search finds what the caller may see."""
        public = ["alice/garden", "bob/workshop"]
        self.assertEqual(self.names("/api/v1/repos/search"), public)
        self.assertEqual(self.names("/api/v1/repos/search?q=WORK"), ["bob/workshop"])
        token = self.pair()["access_token"]
        self.assertIn("alice/diary", self.names("/api/v1/repos/search", token))
        self.assertTrue(self.ask("GET", "/api/v1/repos/search").json["ok"])

    def test_of_somebody(self) -> None:
        """Somebody's list has what the caller may see."""
        token = self.pair()["access_token"]
        self.assertEqual(self.names("/api/v1/users/bob/repos", token), ["bob/workshop"])
        self.assertEqual(self.ask("GET", "/api/v1/users/eve/repos", bearer=token).status, 404)

    def test_one(self) -> None:
        """A repository says what the caller may do in it."""
        mine = self.ask("GET", GARDEN, bearer=self.pair()["access_token"]).json
        theirs = self.ask("GET", GARDEN, bearer=self.pair("bob")["access_token"]).json
        self.assertTrue(mine["permissions"]["push"])
        self.assertFalse(theirs["permissions"]["push"])
        self.assertEqual(self.ask("GET", GARDEN).json["full_name"], "alice/garden")

    def test_private(self) -> None:
        """Somebody else's private repository does not exist."""
        token = self.pair()["access_token"]
        for path in (LEDGER, f"{LEDGER}/issues", f"{LEDGER}/issues/1", "/api/v1/repos/no/no"):
            reply = self.ask("GET", path, bearer=token)
            self.assertEqual(reply.status, 404)
            self.assertEqual(reply.json["message"], "The target couldn't be found.")
        self.assertEqual(self.ask("GET", DIARY).status, 404)


class IssueTests(StandInCase):
    """Issues."""

    def test_list(self) -> None:
        """Open issues, newest first."""
        token = self.pair()["access_token"]
        issues = self.ask("GET", f"{GARDEN}/issues", bearer=token).json
        self.assertEqual([issue["number"] for issue in issues], [2, 1])
        self.assertEqual(issues[0]["user"]["login"], "bob")
        self.forge.instance.repositories[0].issues[0].state = "closed"
        for state, numbers in (("open", [2]), ("closed", [1]), ("all", [2, 1]), ("", [2])):
            issues = self.ask("GET", f"{GARDEN}/issues?state={state}", bearer=token).json
            self.assertEqual([issue["number"] for issue in issues], numbers)
        self.assertEqual(self.ask("GET", f"{GARDEN}/issues?type=pulls", bearer=token).json, [])

    def test_create(self) -> None:
        """A filed issue is answered with 201, and is there."""
        token = self.pair()["access_token"]
        said = {"title": "Moles", "body": "Three of them"}
        reply = self.ask("POST", f"{DIARY}/issues", data=said, bearer=token)
        self.assertEqual((reply.status, reply.json["number"]), (201, 2))
        found = self.ask("GET", f"{DIARY}/issues/2", bearer=token).json
        self.assertEqual((found["title"], found["body"]), ("Moles", "Three of them"))
        self.assertEqual(found["created_at"], "2027-01-15T08:00:00Z")
        self.assertEqual(self.ask("GET", f"{DIARY}/issues/3", bearer=token).status, 404)

    def test_no_title(self) -> None:
        """An issue needs a title."""
        token = self.pair()["access_token"]
        wrong: tuple[Any, ...] = ({}, {"title": " "}, {"title": 3}, [])
        for said in wrong:
            reply = self.ask("POST", f"{GARDEN}/issues", data=said, bearer=token)
            self.assertEqual((reply.status, reply.json["message"]), (422, "[Title]: Required"))

    def test_anonymous(self) -> None:
        """Nobody files without signing in."""
        self.assertEqual(self.ask("POST", f"{GARDEN}/issues", data={"title": "x"}).status, 401)


class ScopeTests(StandInCase):
    """Scopes at the API."""

    def status(self, scope: str, method: str, path: str) -> int:
        """What an application with this scope gets."""
        self.forge.revoke("alice")
        data = {"title": "x"} if method == "POST" else None
        token = self.pair(scope=scope)["access_token"]
        return self.ask(method, path, bearer=token, data=data).status

    def test_missing(self) -> None:
        """A scope that is missing is named in a 403."""
        token = self.pair(scope="read:issue")["access_token"]
        reply = self.ask("POST", f"{GARDEN}/issues", data={"title": "x"}, bearer=token)
        self.assertEqual(reply.status, 403)
        text = "token does not have at least one of required scope(s): [write:issue]"
        self.assertEqual(reply.json, {"message": text, "url": f"{URL}/api/swagger"})
        self.assertIsNone(reply.header("www-authenticate"))

    def test_table(self) -> None:
        """Which scope opens which door."""
        create = ("POST", f"{GARDEN}/issues")
        for scope, method, path, status in (
            ("read:user", "GET", "/api/v1/user", 200),
            ("write:user", "GET", "/api/v1/user", 200),
            ("read:repository", "GET", "/api/v1/user", 403),
            ("read:user", "GET", "/api/v1/user/repos", 403),
            ("read:repository", "GET", "/api/v1/user/repos", 403),
            ("read:user read:repository", "GET", "/api/v1/user/repos", 200),
            ("read:repository", "GET", GARDEN, 200),
            ("read:issue", "GET", GARDEN, 403),
            ("read:repository", "GET", f"{GARDEN}/issues", 403),
            ("read:issue", "GET", f"{DIARY}/issues", 200),
            ("write:issue", "GET", f"{GARDEN}/issues/1", 200),
            ("read:issue", *create, 403),
            ("write:repository", *create, 403),
            ("write:issue", *create, 201),
            ("all", *create, 201),
        ):
            self.assertEqual(self.status(scope, method, path), status, (scope, method, path))

    def test_fails_open(self) -> None:
        """With no valid scope in it, a grant may do everything."""
        for scope in ("", "openid profile", "openid email groups", "read:isue", "ALL", "sudo"):
            self.assertEqual(self.status(scope, "POST", f"{GARDEN}/issues"), 201, scope)
        commas = "read:user,read:repository"
        self.assertEqual(self.status(commas, "POST", f"{GARDEN}/issues"), 201)

    def test_unknown_words_are_dropped(self) -> None:
        """Beside one valid scope, the unknown ones are nothing."""
        scope = "openid read:user sudo write:everything"
        self.assertEqual(self.status(scope, "GET", "/api/v1/user"), 200)
        self.assertEqual(self.status(scope, "POST", f"{GARDEN}/issues"), 403)

    def test_public_only(self) -> None:
        """`public-only` alone opens nothing, and with others it hides what is private."""
        for path in ("/api/v1/user", GARDEN, f"{GARDEN}/issues"):
            self.assertEqual(self.status("public-only", "GET", path), 403)
        scope = "public-only read:user read:repository read:issue"
        self.assertEqual(self.status(scope, "GET", GARDEN), 200)
        for path in (DIARY, f"{DIARY}/issues"):
            self.assertEqual(self.status(scope, "GET", path), 403)
        for path in ("/api/v1/user/repos", "/api/v1/users/alice/repos", "/api/v1/repos/search"):
            text = self.ask("GET", path, bearer=self.pair()["access_token"]).text
            self.assertNotIn("alice/diary", text)
