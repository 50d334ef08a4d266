"""
What real clients register, as captured on the wire or read in their sources.

`scope` and the ports stand as one client chose them; everything else is what
the client always sends.
"""

from __future__ import annotations

from typing import Any, Final

Registration = dict[str, Any]

CLAUDE: Final[Registration] = {
    "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
    "token_endpoint_auth_method": "client_secret_post",
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "client_name": "Claude",
}

CLAUDE_CODE: Final[Registration] = {
    "client_name": "Claude Code (forge)",
    "redirect_uris": ["http://127.0.0.1:54212/callback"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}

CHATGPT: Final[Registration] = {
    "client_name": "ChatGPT",
    "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}

CHATGPT_PER_CONNECTOR: Final[Registration] = CHATGPT | {
    "redirect_uris": ["https://chatgpt.com/connector/oauth/Zx81_kQ-a2"]
}

VS_CODE: Final[Registration] = {
    "client_name": "Visual Studio Code",
    "client_uri": "https://code.visualstudio.com",
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
    ],
    "response_types": ["code"],
    "redirect_uris": [
        "https://insiders.vscode.dev/redirect",
        "https://vscode.dev/redirect",
        "http://localhost/",
        "http://127.0.0.1/",
        "http://localhost:33418/",
        "http://127.0.0.1:33418/",
    ],
    "scope": "forge:read forge:write",
    "token_endpoint_auth_method": "none",
    "application_type": "native",
}

CURSOR: Final[Registration] = {
    "client_name": "Cursor",
    "redirect_uris": [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
    ],
    "application_type": "web",
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}

MCP_REMOTE: Final[Registration] = {
    "client_name": "MCP CLI Proxy",
    "client_uri": "https://github.com/modelcontextprotocol/mcp-cli",
    "redirect_uris": ["http://localhost:14711/oauth/callback"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
    "software_id": "2e6dc280-f3c3-4e01-99a7-8181dbd1d23d",
    "software_version": "0.15.1",
}

INSPECTOR_WEB: Final[Registration] = {
    "client_name": "MCP Inspector",
    "client_uri": "https://github.com/modelcontextprotocol/inspector",
    "redirect_uris": ["http://localhost:6274/oauth/callback"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
    "scope": "",
}

INSPECTOR_CLI: Final = INSPECTOR_WEB | {"redirect_uris": ["http://127.0.0.1:6276/oauth/callback"]}

REGISTRATIONS: Final[dict[str, Registration]] = {
    "Claude": CLAUDE,
    "Claude Code": CLAUDE_CODE,
    "ChatGPT": CHATGPT,
    "ChatGPT, per connector": CHATGPT_PER_CONNECTOR,
    "VS Code": VS_CODE,
    "Cursor": CURSOR,
    "mcp-remote": MCP_REMOTE,
    "Inspector in the browser": INSPECTOR_WEB,
    "Inspector on the command line": INSPECTOR_CLI,
}
